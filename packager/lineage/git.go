// Package lineage finds out where a project comes from: the Git repository and commit that it lies in.
package lineage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Commit is a commit of a Git repository that describes a project exactly: no tracked file differs from it.
type Commit struct {
	ID  string // 40 or 64 hex digits
	URI string // "git+https://host/path", without credentials; empty when the repository has no remote that others can reach
}

// Root gives the folder of the Git working tree around dir, or "".
func Root(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return dir
		} else if !errors.Is(err, fs.ErrNotExist) {
			return ""
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

// GitPath gives the slash-separated path of a file of the project in dir as Git commands take it: from the top of the
// working tree, else from dir.
func GitPath(dir, name string) string {
	root := Root(dir)
	if root == "" {
		return name
	}
	rel, err := filepath.Rel(root, filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return name
	}
	return filepath.ToSlash(rel)
}

var commitID = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// Git gives the commit of the project in dir, of which file is one file: nil when there is no Git, no repository, no commit,
// when the file is not in the commit, or when a tracked file of the repository differs from it. The context is the only
// error.
func Git(ctx context.Context, dir, file string) (*Commit, error) {
	if Root(dir) == "" {
		return nil, nil
	}
	// A repository may be somebody else's: no monitor and no hook that its configuration names is run.
	git := func(args ...string) (string, bool) {
		c, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		cmd := exec.CommandContext(c, "git", append([]string{"-c", "core.fsmonitor=false", "-c", "core.hooksPath=", "-c", "core.untrackedCache=false"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "LC_ALL=C", "GIT_TERMINAL_PROMPT=0")
		var out bytes.Buffer
		cmd.Stdout = &out
		err := cmd.Run()
		return strings.TrimSpace(out.String()), err == nil
	}
	id, ok := git("rev-parse", "--verify", "HEAD^{commit}")
	if !ok || !commitID.MatchString(id) {
		return nil, ctx.Err()
	}
	if _, ok := git("ls-files", "--error-unmatch", "--", filepath.FromSlash(file)); !ok {
		return nil, ctx.Err()
	}
	if changed, ok := git("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=none"); !ok || changed != "" {
		return nil, ctx.Err()
	}
	remote, _ := git("config", "--get", "remote.origin.url")
	return &Commit{ID: id, URI: remoteURI(remote)}, ctx.Err()
}

var scpLike = regexp.MustCompile(`^(?:[^@/:]+@)?([^/:@]+):([^/:].*)$`)

// remoteURI writes a remote as SLSA does, and drops what only this machine understands.
func remoteURI(remote string) string {
	if m := scpLike.FindStringSubmatch(remote); m != nil && !strings.Contains(remote, "://") {
		if len(m[1]) == 1 { // a drive of Windows
			return ""
		}
		return "git+ssh://" + m[1] + "/" + m[2]
	}
	u, err := url.Parse(remote)
	if err != nil || u.Host == "" {
		return ""
	}
	switch u.Scheme {
	case "https", "http", "ssh", "git":
	default:
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return "git+" + u.String()
}

// ShellWord quotes s for a POSIX shell where it needs it.
func ShellWord(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/+=@%,:", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
