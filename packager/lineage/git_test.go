package lineage

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// alone takes away what would lead Git elsewhere than to the repositories of the tests.
func alone(t *testing.T) {
	t.Helper()
	for _, k := range []string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"} {
		t.Setenv(k, "") // so that it is put back
		if err := os.Unsetenv(k); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	t.Setenv("HOME", t.TempDir())
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	args = append([]string{"-c", "user.name=n", "-c", "user.email=n@example.com", "-c", "commit.gpgsign=false", "-c", "core.autocrlf=false"}, args...)
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A commit is told only when it describes the project exactly.
func TestGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal(err)
		}
		t.Skip("there is no git")
	}
	alone(t)
	top := t.TempDir()
	dir := filepath.Join(top, "models", "one")
	at := func(dir string) *Commit {
		t.Helper()
		c, err := Git(t.Context(), dir, "waybill.yaml")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	none := func(dir, why string) {
		t.Helper()
		if c := at(dir); c != nil {
			t.Errorf("%s: %+v", why, c)
		}
	}
	file := filepath.Join(dir, "waybill.yaml")
	write(t, file, "name: x\n")
	write(t, filepath.Join(top, "README"), "text\n")
	git(t, top, "init", "-q")
	none(dir, "no commit")
	git(t, top, "add", "README")
	git(t, top, "commit", "-q", "-m", "first")
	none(dir, "not in the commit")
	git(t, top, "add", ".")
	none(dir, "only in the index")
	git(t, top, "commit", "-q", "-m", "second")
	id := git(t, top, "rev-parse", "HEAD")
	if c := at(dir); c == nil || c.ID != id || c.URI != "" {
		t.Errorf("clean: %+v, want %s", c, id)
	}

	write(t, filepath.Join(top, "untracked"), "x")
	git(t, top, "remote", "add", "origin", "https://user:secret@example.com/team/models.git?x=y#z")
	if c := at(dir); c == nil || c.ID != id || c.URI != "git+https://example.com/team/models.git" {
		t.Errorf("with an untracked file and a remote: %+v", c)
	}

	write(t, file, "name: y\n")
	none(dir, "changed")
	git(t, top, "add", ".")
	none(dir, "changed and staged")
	git(t, top, "reset", "-q", "--hard")
	write(t, filepath.Join(top, "README"), "changed beside the project\n")
	none(dir, "another file changed")
	git(t, top, "checkout", "-q", "--", ".")
	if at(dir) == nil {
		t.Error("clean again: no commit")
	}

	// A working tree of its own, without a branch: its .git is a file.
	tree := filepath.Join(t.TempDir(), "tree")
	first := git(t, top, "rev-parse", "HEAD~1")
	git(t, top, "worktree", "add", "-q", "--detach", tree, id)
	other := filepath.Join(tree, "models", "one")
	if c := at(other); c == nil || c.ID != id || Root(other) != tree {
		t.Errorf("detached: %+v, root %s", c, Root(other))
	}
	git(t, tree, "checkout", "-q", first)
	write(t, filepath.Join(other, "waybill.yaml"), "name: x\n")
	none(other, "not in the commit that this tree is at")

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := Git(cancelled, dir, "waybill.yaml"); c != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %+v, %v", c, err)
	}
}

// Without Git, and outside of a repository, there is no commit, and that is no error.
func TestNoGit(t *testing.T) {
	alone(t)
	dir := t.TempDir()
	if Root(dir) != "" {
		t.Skip("the folder for temporary files lies in a repository")
	}
	write(t, filepath.Join(dir, "waybill.yaml"), "name: x\n")
	if c, err := Git(t.Context(), dir, "waybill.yaml"); c != nil || err != nil {
		t.Errorf("no repository: %+v, %v", c, err)
	}
	if got := GitPath(dir, "a/b"); got != "a/b" {
		t.Errorf("path outside of a repository: %s", got)
	}
	if err := os.Mkdir(filepath.Join(dir, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	if c, err := Git(t.Context(), dir, "waybill.yaml"); c != nil || err != nil {
		t.Errorf("no git: %+v, %v", c, err)
	}
	sub := filepath.Join(dir, "models")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if Root(sub) != dir || GitPath(sub, "a/b") != "models/a/b" {
		t.Errorf("root %s, path %s", Root(sub), GitPath(sub, "a/b"))
	}
}

func TestRemoteURI(t *testing.T) {
	for remote, want := range map[string]string{
		"https://example.com/a/b.git":          "git+https://example.com/a/b.git",
		"https://token@example.com/a/b":        "git+https://example.com/a/b",
		"https://u:p@example.com:8443/a?t=1#f": "git+https://example.com:8443/a",
		"ssh://git@example.com/a/b.git":        "git+ssh://example.com/a/b.git",
		"git@example.com:a/b.git":              "git+ssh://example.com/a/b.git",
		"example.com:a/b.git":                  "git+ssh://example.com/a/b.git",
		"git://example.com/a":                  "git+git://example.com/a",
		`C:\models`:                            "",
		"C:models":                             "",
		"file:///srv/a":                        "",
		"/srv/a":                               "",
		"../a":                                 "",
		"ext::sh -c touch% /tmp/x":             "",
		"":                                     "",
		"javascript://example.com/%0aalert(1)": "",
	} {
		if got := remoteURI(remote); got != want {
			t.Errorf("%q: %q, want %q", remote, got, want)
		}
	}
}
