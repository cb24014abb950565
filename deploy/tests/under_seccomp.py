"""under_seccomp.py PROFILE PROGRAM [ARGUMENT…]: runs a program under a seccomp profile, as container runtimes do it: libseccomp makes the filter."""

import ctypes
import json
import os
import sys

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
OPERATORS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("datum_a", ctypes.c_uint64), ("datum_b", ctypes.c_uint64)]


def action(rule, default):
    return ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else ERRNO | rule.get("errnoRet", default)


def load(profile):
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Compare)]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    errno = profile["defaultErrnoRet"]
    context = library.seccomp_init(ERRNO | errno)
    for rule in profile["syscalls"]:
        compare = [Compare(a["index"], OPERATORS[a["op"]], a["value"], a.get("valueTwo", 0)) for a in rule.get("args", [])]
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # Runtimes leave out what an architecture has not.
            if number < 0:
                continue
            failed = library.seccomp_rule_add_array(context, action(rule, errno), number, len(compare), (Compare * len(compare))(*compare))
            if failed:
                sys.exit(f"{name}: {os.strerror(-failed)}")
    if failed := library.seccomp_load(context):
        sys.exit(f"the filter cannot be loaded: {os.strerror(-failed)}")


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        load(json.load(file))
    os.execv(sys.argv[2], sys.argv[2:])
