"""CSV and TensorBoard loggers that continue after a resume."""
