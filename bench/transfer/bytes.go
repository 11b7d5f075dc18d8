package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// count is the bytes that crossed the wire in the direction of the transfer.
type count struct {
	What, Registry, Tool string
	Bytes                int64
}

// bytes counts, in a proxy before the registry, what the second of two transfers moves: the same push again, a push to
// another repository, a push after a change of 1 MiB in one of eight files, and a pull and a push that were killed at half.
func (b *bench) bytes(ctx context.Context) ([]count, error) {
	var out []count
	for _, kind := range b.kinds {
		for _, tool := range []string{"waybill", "oras"} {
			if tool == "oras" && b.tools["oras"] == "" || !b.wants(step{step: "bytes", registry: kind, tool: tool}) {
				continue
			}
			c, err := b.bytesOf(ctx, kind, tool)
			out = append(out, c...)
			if err != nil {
				return out, fmt.Errorf("bytes, %s, %s: %w", kind, tool, err)
			}
		}
	}
	return out, nil
}

func (b *bench) bytesOf(ctx context.Context, kind, tool string) ([]count, error) {
	s, err := b.startServer(ctx, kind)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	var out []count
	push := func(m, addr, repo string) proc {
		if tool == "oras" {
			return b.toolProc("oras", "", "cp", "--from-oci-layout", b.layout(m)+":1", "--to-plain-http", addr+"/"+repo+":1")
		}
		return b.waybillProc("push", m+":1.0.0", addr+"/"+repo+":1")
	}
	pull := func(addr, dir string) proc {
		if tool == "oras" {
			return b.toolProc("oras", "", "pull", "--plain-http", addr+"/a/one:1", "-o", dir)
		}
		return b.waybillProc("pull", addr+"/a/one:1", "--out", dir)
	}
	// A server that the proxy stands before: the proxy's address is the registry's name for the tool.
	front, err := newProxy(ctx, s.addr, 0)
	if err != nil {
		return nil, err
	}
	defer front.close()
	sent := func(what string, p proc) error {
		before := front.up.Load()
		if _, _, err := run(ctx, p); err != nil {
			return err
		}
		out = append(out, count{what, kind, tool, front.up.Load() - before})
		return nil
	}
	if err := sent("first push", push("one", front.addr, "a/one")); err != nil {
		return out, err
	}
	if err := sent("the same push again", push("one", front.addr, "a/one")); err != nil {
		return out, err
	}
	if err := sent("push to another repository", push("one", front.addr, "b/one")); err != nil {
		return out, err
	}

	// Killed at half of a pull, then again to its end.
	dir := b.scratch("killed")
	defer os.RemoveAll(dir)
	if n, err := b.killed(ctx, s.addr, func(addr string) proc { return pull(addr, dir) }, true); err != nil {
		return out, err
	} else if err := b.complete(dir, "one"); err != nil {
		return out, fmt.Errorf("pull after a kill: %w", err)
	} else {
		out = append(out, count{"downloaded twice after a kill at half", kind, tool, max(0, n-b.size)})
	}
	// The same of a push, to a registry that has nothing.
	s2, err := b.startServer(ctx, kind)
	if err != nil {
		return out, err
	}
	defer s2.stop()
	n, err := b.killed(ctx, s2.addr, func(addr string) proc { return push("one", addr, "a/one") }, false)
	if err != nil {
		return out, err
	}
	return append(out, count{"sent twice after a kill at half", kind, tool, max(0, n-b.size)}), nil
}

// killed starts a transfer, kills it when half of the model has passed, runs it again, and returns the bytes of both.
func (b *bench) killed(ctx context.Context, target string, p func(addr string) proc, down bool) (int64, error) {
	x, err := newProxy(ctx, target, b.size/2)
	if err != nil {
		return 0, err
	}
	defer x.close()
	c := command(ctx, p(x.addr))
	if err := c.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case <-x.reached:
	case err := <-ended:
		return 0, fmt.Errorf("it ended before half was through: %v", err)
	}
	_ = c.Process.Kill()
	<-ended
	x.let()
	if _, _, err := run(ctx, p(x.addr)); err != nil {
		return 0, err
	}
	if down {
		return x.down.Load(), nil
	}
	return x.up.Load(), nil
}

// verifySteps sign a small artifact with a key and verify it, many times each, since a run takes milliseconds.
func (b *bench) verifySteps(ctx context.Context, s *server) ([]step, error) {
	dir := filepath.Join(b.dir, "verify")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return b.verifyWith(ctx, s, dir)
}
