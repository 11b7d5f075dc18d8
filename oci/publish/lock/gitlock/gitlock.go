// Package gitlock keeps a lock in a ref of a Git repository, through the installed git: a push with a lease compares and
// moves the ref in one step. The value is the message of a commit without files.
package gitlock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/publish/lock"
)

// Register is a lock.Register. Close removes its scratch folder.
type Register struct {
	remote, ref, dir string
	tree             string
	env              []string
}

// Open gives the register of a lock. Git finds credentials as it always does; it asks nobody for any.
func Open(ctx context.Context, u lock.URI, name string) (*Register, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return nil, diag.Wrap(diag.Failure, err, "lock %s", u.Raw).Hint("git --version")
	}
	dir, err := os.MkdirTemp("", "waybill-lock-")
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "lock %s", u.Raw)
	}
	r := &Register{remote: u.Remote, ref: u.Prefix + "/" + name, dir: dir, env: environ()}
	if _, _, err := r.git(ctx, nil, "init", "-q", "--bare"); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	out, _, err := r.git(ctx, []byte{}, "hash-object", "-t", "tree", "-w", "--stdin")
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.tree = strings.TrimSpace(string(out))
	return r, nil
}

// Close removes the scratch folder.
func (r *Register) Close() error { return os.RemoveAll(r.dir) }

// environ is the environment of git: no questions, one language, and not the repository that the caller may stand in.
func environ() []string {
	var out []string
	for _, e := range os.Environ() {
		switch k, _, _ := strings.Cut(e, "="); k {
		case "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "LC_ALL", "LANGUAGE":
		default:
			out = append(out, e)
		}
	}
	return append(out, "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=waybill", "GIT_AUTHOR_EMAIL=waybill@localhost", "GIT_COMMITTER_NAME=waybill", "GIT_COMMITTER_EMAIL=waybill@localhost")
}

// git runs one command in the scratch repository.
func (r *Register) git(ctx context.Context, stdin []byte, args ...string) (stdout, stderr []byte, err error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "gc.auto=0", "-c", "commit.gpgSign=false", "-c", "core.hooksPath=" + os.DevNull}, args...)...)
	cmd.Dir, cmd.Env = r.dir, append(r.env, "GIT_DIR="+r.dir)
	var out, errb bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errb
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return out.Bytes(), errb.Bytes(), diag.Wrap(diag.Registry, err, "git %s for lock %s of %s", args[0], r.ref, r.remote).Line("%s", firstLine(errb.Bytes())).
			Hint("git ls-remote %s %s", r.remote, r.ref)
	}
	return out.Bytes(), errb.Bytes(), nil
}

func firstLine(b []byte) string {
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSpace(l); l != "" {
			return l
		}
	}
	return "git said nothing"
}

// listed looks for the very ref: what ls-remote is given is a pattern.
func (r *Register) listed(out []byte) bool {
	for l := range strings.Lines(string(out)) {
		if _, ref, _ := strings.Cut(strings.TrimSpace(l), "\t"); ref == r.ref {
			return true
		}
	}
	return false
}

// Load implements lock.Register; the version is the commit.
func (r *Register) Load(ctx context.Context) ([]byte, string, error) {
	for range 5 {
		out, _, err := r.git(ctx, nil, "ls-remote", "--", r.remote, r.ref)
		if err != nil {
			return nil, "", err
		}
		if !r.listed(out) {
			return nil, "", nil
		}
		if _, _, err := r.git(ctx, nil, "fetch", "-q", "--no-tags", "--depth=1", "--", r.remote, "+"+r.ref+":refs/seen"); err != nil {
			if ctx.Err() != nil {
				return nil, "", err
			}
			continue // deleted in between
		}
		out, _, err = r.git(ctx, nil, "rev-parse", "--verify", "refs/seen")
		if err != nil {
			return nil, "", err
		}
		commit := strings.TrimSpace(string(out))
		// The message, or what else somebody put there: then nobody can read it, and it counts as held by somebody unknown.
		out, _, err = r.git(ctx, nil, "log", "-1", "--format=%B", commit)
		if err != nil {
			return nil, commit, nil //nolint:nilerr // no commit
		}
		return bytes.TrimSpace(out[:min(len(out), lock.MaxValue)]), commit, nil
	}
	return nil, "", diag.New(diag.Registry, "ref %s of %s cannot be fetched", r.ref, r.remote).Hint("git ls-remote %s %s", r.remote, r.ref)
}

// Swap implements lock.Register.
func (r *Register) Swap(ctx context.Context, version string, value []byte) (string, error) {
	out, _, err := r.git(ctx, value, "commit-tree", r.tree)
	if err != nil {
		return "", err
	}
	commit := strings.TrimSpace(string(out))
	out, _, err = r.git(ctx, nil, "push", "--porcelain", "--no-verify", "--force-with-lease="+r.ref+":"+version, "--", r.remote, commit+":"+r.ref)
	if err == nil {
		return commit, nil
	}
	for l := range strings.Lines(string(out)) {
		if strings.HasPrefix(l, "!") && contended(l) {
			return "", fmt.Errorf("%w: %w", lock.ErrMoved, err)
		}
	}
	return "", err
}

// contended tells a ref that stood elsewhere, or was being moved, from a repository that refuses such pushes.
func contended(line string) bool {
	for _, s := range []string{"stale info", "fetch first", "cannot lock ref", "failed to update ref", "failed to lock", "reference already exists", "incorrect old value"} {
		if strings.Contains(line, s) {
			return true
		}
	}
	return false
}
