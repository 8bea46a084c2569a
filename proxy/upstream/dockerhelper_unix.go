//go:build unix

package upstream

import (
	"os/exec"
	"syscall"
)

// endWithAll makes a command one that ends together with what it has started.
func endWithAll(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
