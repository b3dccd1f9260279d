#!/usr/bin/env bash
# A SLURM of two nodes on one machine, to try launcher=slurm and what happens when a node dies.
#
#   bash scripts/slurm_cluster.sh start DIR    prints the line that makes sbatch and squeue use it
#   bash scripts/slurm_cluster.sh kill DIR N   kill -9 node N (1 or 2) with all that runs on it
#   bash scripts/slurm_cluster.sh node DIR N   start node N again
#   bash scripts/slurm_cluster.sh stop DIR
#
# As root, with Debian's packages slurm-wlm and munge. No accounting, no cgroups, no systemd: what a
# small cluster has, too. All files are in DIR; ports 16917, 16921 and 16922.
set -euo pipefail

readonly VERB=${1:?start, kill, node or stop} DIR=$(mkdir -p "${2:?a folder}" && cd "$2" && pwd)
export SLURM_CONF=$DIR/slurm.conf

node() { slurmd -c -f "$SLURM_CONF" -N "n$1" -L "$DIR/n$1.log"; }

end() { # what wrote these pid files
  local file
  for file in "$@"; do
    if [ -s "$file" ]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
}

of_node() { # whether these are the variables of a job's process there
  tr '\0' '\n' <"$2" | grep -qx "SLURMD_NODENAME=n$1" && tr '\0' '\n' <"$2" | grep -qx "SLURM_CONF=$SLURM_CONF"
}

configure() {
  local host
  host=$(hostname -s)
  cat >"$SLURM_CONF" <<CONF
ClusterName=two
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16917
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool_%n
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/%n.pid
SlurmdTimeout=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
KillWait=30
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16921 CPUs=2 RealMemory=8000 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16922 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
}

munge_daemon() { # authentication between the daemons, with a key of its own
  mkdir -p /run/munge
  chown munge: /run/munge
  munge -n 2>/dev/null | unmunge >/dev/null 2>&1 && return
  if [ ! -s /etc/munge/munge.key ]; then
    dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
  fi
  chown munge: /etc/munge/munge.key
  chmod 400 /etc/munge/munge.key
  runuser -u munge -- munged
}

case $VERB in
  start)
    mkdir -p "$DIR/state"
    munge_daemon
    configure
    slurmctld -f "$SLURM_CONF" -L "$DIR/slurmctld.log"
    node 1
    node 2
    for _ in $(seq 60); do
      [ "$(sinfo --noheader --format=%T 2>/dev/null | sort -u)" = idle ] && break
      sleep 0.5
    done
    sinfo >&2
    echo "export SLURM_CONF=$SLURM_CONF"
    ;;
  kill)
    for one in /proc/[0-9]*; do
      if of_node "${3:?1 or 2}" "$one/environ"; then
        parent=$(awk '{print $4}' "$one/stat")
        [ "$(cat "/proc/$parent/comm")" != slurmstepd ] || kill -9 "$parent"
        kill -9 "${one#/proc/}"
      fi
    done 2>/dev/null || true
    kill -9 "$(cat "$DIR/n$3.pid")"
    ;;
  node) node "${3:?1 or 2}" ;;
  stop) end "$DIR"/*.pid ;;
esac
