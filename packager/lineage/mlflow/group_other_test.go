//go:build !unix

package mlflow

import "os/exec"

func own(*exec.Cmd) {}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()
}
