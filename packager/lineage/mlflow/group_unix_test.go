//go:build unix

package mlflow

import (
	"os/exec"
	"syscall"
)

// own gives a command a group of processes, and end ends all of it: the server starts workers.
func own(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func end(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	_ = cmd.Wait()
}
