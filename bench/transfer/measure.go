package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// cost is what one run of one process took. Peak memory and bytes are 0 where the platform does not tell.
type cost struct {
	Wall, CPU   time.Duration
	PeakRSS     int64 // bytes
	Read, Wrote int64 // bytes: read by calls, from sockets too; made dirty on disk
}

// proc is one command line with its environment.
type proc struct {
	args []string
	env  []string
	dir  string
}

// run runs p to its end and measures it. The error has what it printed.
func run(ctx context.Context, p proc) (cost, string, error) {
	var out bytes.Buffer
	c := command(ctx, p)
	c.Stdout, c.Stderr = &out, &out
	start := time.Now()
	if err := c.Start(); err != nil {
		return cost{}, "", fmt.Errorf("%s: %w", p.args[0], err)
	}
	io := ioAtEnd(c.Process.Pid) // waits for the end
	wall := time.Since(start)
	err := c.Wait()
	k := cost{Wall: wall, CPU: c.ProcessState.UserTime() + c.ProcessState.SystemTime(), PeakRSS: peakRSS(c.ProcessState), Read: io.read, Wrote: io.wrote}
	if err != nil {
		return k, out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(p.args, " "), err, out.String())
	}
	return k, out.String(), nil
}

func command(ctx context.Context, p proc) *exec.Cmd {
	c := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	c.Env = append(os.Environ(), p.env...)
	c.Dir = p.dir
	return c
}

type ioCount struct{ read, wrote int64 }
