package folder

import "syscall"

const statAt = syscall.SYS_FSTATAT
