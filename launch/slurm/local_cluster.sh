#!/usr/bin/env bash
# A real SLURM of two nodes on one Debian or Ubuntu machine, to try jobs and to test on.
# Usage: sudo bash launch/slurm/local_cluster.sh up|down|status
#   up      installs slurm-wlm and munge where they are absent, writes the configuration, starts the
#           daemons, and waits until both nodes are idle; does nothing where all is up already
#   down    stops the daemons and removes what up has written; the packages and munge stay
#   status  shows the nodes; fails unless both are up
# NAKT_MAX_ARRAY_SIZE=5 in the environment of up sets MaxArraySize, also of one that is up (1001).
# Exit status: 0 done, 1 it cannot be done here (the message says why), 2 wrong usage.
set -euo pipefail
PATH="$PATH:/usr/sbin"
configuration=/etc/slurm/slurm.conf
state=/var/lib/nakt-slurm   # saved jobs, logs and process ids of this cluster alone
cluster=nakt-local
nodes=(nakt1 nakt2)
array_size="${NAKT_MAX_ARRAY_SIZE:-1001}"
mark="# written by nakt_dist launch/slurm/local_cluster.sh"

refuse() {
    echo "local_cluster.sh: $1" >&2
    exit 1
}

is_ours() {
    [ -f "$configuration" ] && grep -qxF "$mark" "$configuration"
}

check_machine() {
    [ "$(id -u)" = 0 ] || refuse "needs root: sudo bash launch/slurm/local_cluster.sh up"
    [ ! -e "$configuration" ] || is_ours ||
        refuse "$configuration belongs to another cluster; use that one, or a machine without"
}

install_packages() {
    local program missing=""
    for program in slurmctld slurmd sbatch munged; do
        command -v "$program" > /dev/null || missing=yes
    done
    [ -n "$missing" ] || return 0
    command -v apt-get > /dev/null ||
        refuse "SLURM is absent and this is no Debian or Ubuntu; install SLURM and munge yourself"
    echo "local_cluster.sh: installing slurm-wlm and munge …" >&2
    { apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends slurm-wlm munge; } > /dev/null ||
        refuse "apt-get could not install slurm-wlm and munge; see its message above"
}

is_running() {   # pid file, such as slurmd.nakt1.pid; after a reboot its number may be another's
    local program="${1##*/}"
    [ "$(cat "/proc/$(cat "$1" 2> /dev/null)/comm" 2> /dev/null)" = "${program%%.*}" ]
}

start_munge() {
    # munge -n asks a running daemon, whoever started it.
    if munge -n > /dev/null 2>&1; then
        return
    fi
    mkdir -p /etc/munge /run/munge /var/log/munge /var/lib/munge
    if [ ! -s /etc/munge/munge.key ]; then
        (umask 077; head -c 1024 /dev/urandom > /etc/munge/munge.key)
    fi
    chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
    chmod 755 /run/munge
    runuser -u munge -- munged || refuse "munged did not start; see /var/log/munge/munged.log"
    for _ in $(seq 50); do
        munge -n > /dev/null 2>&1 && return
        sleep 0.1
    done
    refuse "munged does not answer; see /var/log/munge/munged.log"
}

write_configuration() {
    local host memory
    host="$(hostname -s)"
    memory="$(awk '/MemTotal/ { print int($2 / 1024 / 2) }' /proc/meminfo)"
    mkdir -p "$(dirname "$configuration")" "$state"
    # Two daemons on one host need a port and folders each. Four tasks fit on a node whatever the
    # machine has (config_overrides).
    cat > "$configuration" <<END
$mark
ClusterName=$cluster
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=10
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdParameters=config_overrides
MaxArraySize=$array_size
StateSaveLocation=$state/state
SlurmctldPidFile=$state/slurmctld.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdSpoolDir=$state/spool.%n
SlurmdPidFile=$state/slurmd.%n.pid
SlurmdLogFile=$state/slurmd.%n.log
NodeName=${nodes[0]} NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=4 RealMemory=$memory
NodeName=${nodes[1]} NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=4 RealMemory=$memory
PartitionName=local Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
END
    # Jobs meet at the first node's name, so the names must lead somewhere.
    grep -qF "$mark" /etc/hosts || echo "127.0.0.1 ${nodes[*]} $mark" >> /etc/hosts ||
        refuse "/etc/hosts cannot be written, so that node names lead nowhere"
}

start_daemons() {
    mkdir -p "$state/state"
    is_running "$state/slurmctld.pid" || slurmctld || refuse "slurmctld did not start"
    local node
    for node in "${nodes[@]}"; do
        mkdir -p "$state/spool.$node"
        is_running "$state/slurmd.$node.pid" || slurmd -N "$node" ||
            refuse "slurmd of $node did not start; see $state/slurmd.$node.log"
    done
}

all_up() {
    local name
    for name in slurmctld "${nodes[@]/#/slurmd.}"; do
        is_running "$state/$name.pid" || return 1
    done
    [ "$(sinfo --noheader --Node --format '%N %t' 2> /dev/null |
        grep -cE "^(${nodes[0]}|${nodes[1]}) (idle|mix|alloc|comp)$")" = "${#nodes[@]}" ]
}

set_array_size() {   # slurmctld reads it when it starts; jobs outlive that
    grep -qxF "MaxArraySize=$array_size" "$configuration" && return
    check_machine
    sed -i '/^MaxArraySize=/d' "$configuration"
    echo "MaxArraySize=$array_size" >> "$configuration"
    stop "$state/slurmctld.pid"
    start_daemons
    wait_until_up
}

wait_until_up() {
    local names
    names="$(IFS=,; echo "${nodes[*]}")"
    for _ in $(seq 120); do
        all_up && return
        # A drained node, such as after a job that did not end, takes none until it is told to.
        scontrol update NodeName="$names" State=RESUME > /dev/null 2>&1 || true
        sleep 0.5
    done
    sinfo --Node --long >&2 || true
    refuse "the nodes did not come up within a minute; see the logs in $state"
}

up() {
    if is_ours && all_up; then
        set_array_size
        return
    fi
    check_machine
    install_packages
    start_munge
    write_configuration
    start_daemons
    wait_until_up
}

stop() {   # pid file
    if is_running "$1"; then
        kill "$(cat "$1")"
        for _ in $(seq 100); do
            is_running "$1" || return 0
            sleep 0.1
        done
        refuse "the process of $1 does not end"
    fi
}

down() {
    check_machine
    is_ours || return 0
    scancel --full --state=RUNNING --state=PENDING 2> /dev/null || true
    local node
    for node in "${nodes[@]}"; do
        stop "$state/slurmd.$node.pid"
    done
    stop "$state/slurmctld.pid"
    rm -rf "$configuration" "$state"
    # Rewritten in place: in a container the file is often a mount that cannot be replaced.
    local rest
    rest="$(sed "\|$mark\$|d" /etc/hosts)"   # grep -v would fail where no other line is
    printf '%s\n' "$rest" > /etc/hosts
}

case "${1:-}" in
    up) up ;;
    down) down ;;
    status)
        is_ours || refuse "not set up here; bash launch/slurm/local_cluster.sh up"
        sinfo --Node --long || refuse "slurmctld does not answer; run up again"
        all_up || refuse "a node is down; run up again"
        ;;
    *)
        echo "usage: bash launch/slurm/local_cluster.sh up|down|status" >&2
        exit 2
        ;;
esac
