/*
 * Registers for user-mode Linux 6.1, which hands the kernel below it a buffer for those up to
 * AVX-512. On a processor with more, such as AMX, that kernel refuses it (EFAULT): it takes all or
 * none. The rest, which programs have to ask for before they use it, stays as it is.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

static long transfer(int request, pid_t pid, struct iovec *known)
{
    static char registers[1 << 16];
    struct iovec all = { registers, sizeof registers };

    if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all) < 0)
        return -1;
    if (known->iov_len > all.iov_len)
        known->iov_len = all.iov_len;
    if (request == PTRACE_GETREGSET) {
        memcpy(known->iov_base, registers, known->iov_len);
        return 0;
    }
    memcpy(registers, known->iov_base, known->iov_len);
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list rest;
    long word = 0;

    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *address = va_arg(rest, void *);
    void *data = va_arg(rest, void *);
    va_end(rest);
    if ((request == PTRACE_GETREGSET || request == PTRACE_SETREGSET) &&
        (unsigned long)address == NT_X86_XSTATE)
        return transfer(request, pid, data);
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER)
        return syscall(SYS_ptrace, request, pid, address, &word) < 0 ? -1 : word;
    return syscall(SYS_ptrace, request, pid, address, data);
}
