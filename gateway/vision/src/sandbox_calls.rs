//! The system calls and files a worker may use. Owns the two filters of the kernel: seccomp(2) for calls, Landlock for files; refuses
//! to name what the libraries need call by call: that differs by their versions, and a camera must not go blind because a
//! decoder was updated. So what is refused is what an attacker needs and no decoder ever does: other programs, other
//! processes, other users, the kernel's own configuration, and every file that is not on the list.

use std::collections::BTreeMap;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// What the system itself needs for names, certificates, libraries, and what the inference runtime asks about the processor. No
/// folder that holds secrets of the gateway.
const READABLE: [&str; 18] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/ca-certificates",
    "/usr/lib",
    "/lib",
    "/lib64",
    "/sys/devices/system/cpu",
    "/proc/cpuinfo",
    "/proc/self",
];

/// Limits files to [`READABLE`], `readable` and `writable`; no program may be started from any. True: the kernel enforces it; false:
/// this kernel has no Landlock.
pub(crate) fn confine_files(readable: &[PathBuf], writable: &[PathBuf]) -> Result<bool, String> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let abi = ABI::V5;
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let may_read = READABLE.iter().map(PathBuf::from).chain(readable.iter().cloned());
    let devices = ["/dev/null", "/dev/urandom", "/dev/random"].map(PathBuf::from);
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(Ruleset::create)
        .and_then(|r| r.add_rules(path_beneath_rules(may_read, read)))
        .and_then(|r| r.add_rules(path_beneath_rules(devices, AccessFs::ReadFile | AccessFs::WriteFile)))
        .and_then(|r| r.add_rules(path_beneath_rules(writable, AccessFs::from_all(abi) & !AccessFs::Execute)))
        .map_err(|e| text(&e))?;
    let status = ruleset.restrict_self().map_err(|e| text(&e))?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Calls that end the process.
fn forbidden() -> Vec<i64> {
    #[cfg(target_arch = "x86_64")]
    let legacy =
        [libc::SYS_fork, libc::SYS_vfork, libc::SYS_uselib, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
    #[cfg(not(target_arch = "x86_64"))]
    let legacy: [i64; 0] = [];
    let all = [
        // other programs and processes
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_kcmp,
        // other users and namespaces
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setgroups,
        libc::SYS_capset,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_personality,
        // other roots and file systems
        libc::SYS_chroot,
        libc::SYS_pivot_root,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_open_by_handle_at,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_quotactl,
        // the kernel and the machine
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_adjtimex,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_syslog,
        libc::SYS_acct,
        libc::SYS_add_key,
        libc::SYS_keyctl,
        libc::SYS_request_key,
        // nobody connects to a camera worker
        libc::SYS_listen,
        libc::SYS_accept,
        libc::SYS_accept4,
    ];
    all.into_iter().chain(legacy).collect()
}

/// Installs the filters in every thread: a forbidden call ends the process with SIGSYS; a few are answered as if this kernel did not
/// know them, because a library that asks goes on without.
pub(crate) fn confine_calls() -> Result<(), String> {
    // A thread is fine, a process is not. clone3 passes its flags where a filter cannot read; without it libc uses clone.
    let process = condition(0, SeccompCmpOp::MaskedEq(u64::from(libc::CLONE_THREAD.unsigned_abs())), 0)?;
    let mut ending: BTreeMap<i64, Vec<SeccompRule>> = forbidden().into_iter().map(|call| (call, Vec::new())).collect();
    ending.insert(libc::SYS_clone, vec![rule(vec![process])?]);
    let unknown = [libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let unknown = unknown.into_iter().map(|call| (call, Vec::new())).collect();
    // The internet, and netlink for the resolver; no sockets of this box's other programs, no raw packets.
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let other: Result<Vec<_>, String> =
        families.iter().map(|family| condition(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs()))).collect();
    let sockets = BTreeMap::from([(libc::SYS_socket, vec![rule(other?)?])]);
    install(sockets, SeccompAction::Errno(libc::EAFNOSUPPORT.unsigned_abs()))?;
    install(unknown, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()))?;
    install(ending, SeccompAction::Trap)
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value).map_err(|e| e.to_string())
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|e| e.to_string())
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, action: SeccompAction) -> Result<(), String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| e.to_string())?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).map_err(|e| e.to_string())?;
    let program = BpfProgram::try_from(filter).map_err(|e| e.to_string())?;
    seccompiler::apply_filter_all_threads(&program).map_err(|e| e.to_string())
}
