//! A system call taken away, as a container's seccomp profile does.
//!
//! A filter can never be taken off again, so whoever calls this does it in a process of its own.

use nix::libc;

/// From now on, `call` (`libc::SYS_…`) fails with `code` in all threads of this process and of what it becomes.
/// Panics where the kernel has no seccomp.
pub fn refuse(call: libc::c_long, code: i32) {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_if_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        // The number of the system call is the first field.
        step(load, 0, 0, 0),
        step(jump_if_equal, 0, 1, call as u32),
        step(give, 0, 0, libc::SECCOMP_RET_ERRNO | code as u32),
        step(give, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain numbers; and a pointer to a program that outlives the call, which copies it.
    let result = unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    assert_eq!(result, 0, "seccomp: {}", std::io::Error::last_os_error());
}
