//go:build unix

package demo

import (
	"os"
	"os/exec"
	"syscall"
)

// group gives cmd a process group of its own, so that an interrupt at the terminal reaches only the demo, which then
// ends the group.
func group(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func interruptGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGTERM) }

func killGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
