package cli_test

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptCommands are the words that scripts have besides testscript's own:
//
//	exitcode N cmd args...        run cmd, demand exit code N; stdout and stderr can be matched afterwards
//	json FILE PATH [VALUE]        the JSON in FILE ("stdout" too) has PATH (a.b.0.c), with VALUE when given
//	setenvfrom NAME FILE          set NAME to the last line of FILE ("stdout" too)
//	flip FILE OFFSET              invert one byte; OFFSET "largest": the middle of a tar's largest file
//	waitfile FILE                 wait until FILE is there
//	alter LAYOUT FILE PATH        invert a byte of the blob in LAYOUT whose digest the JSON in FILE has at PATH
//	truncate FILE SIZE            cut a file
//	pemkey FILE                   write a new P-256 private key in PEM, without a passphrase, as OpenSSL would
//	holdlock LOCKS REPO CHANNEL   somebody has the lock there and never comes back; their id is in HOLDER
//	edit FILE OLD NEW             replace a text that stands in FILE once; the file's mode stays
func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	cmds := map[string]func(*testscript.TestScript, bool, []string){
		"exitcode": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) < 2 {
				ts.Fatalf("usage: exitcode N cmd args...")
			}
			want, err := strconv.Atoi(args[0])
			ts.Check(err)
			err = ts.Exec(args[1], args[2:]...)
			got := 0
			var x *exec.ExitError
			if errors.As(err, &x) {
				got = x.ExitCode()
			} else {
				ts.Check(err)
			}
			if got != want {
				ts.Fatalf("exit code %d, want %d", got, want)
			}
		},
		"holdlock": holdLock,
		"json": func(ts *testscript.TestScript, neg bool, args []string) {
			if len(args) < 2 || len(args) > 3 {
				ts.Fatalf("usage: json FILE PATH [VALUE]")
			}
			d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
			d.UseNumber()
			var v any
			ts.Check(d.Decode(&v))
			if d.More() {
				ts.Fatalf("%s: more than one JSON document", args[0])
			}
			got, err := walk(v, strings.Split(args[1], "."))
			ok := err == nil && (len(args) == 2 || got == args[2])
			if ok == neg {
				ts.Fatalf("%s: %s is %q (%v)", args[0], args[1], got, err)
			}
		},
		"waitfile": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: waitfile FILE")
			}
			for range 3000 {
				if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			ts.Fatalf("%s does not appear", args[0])
		},
		"alter": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 3 {
				ts.Fatalf("usage: alter LAYOUT FILE PATH")
			}
			var v any
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &v))
			digest, err := walk(v, strings.Split(args[2], "."))
			ts.Check(err)
			name := filepath.Join(ts.MkAbs(args[0]), "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
			b, err := os.ReadFile(name)
			ts.Check(err)
			b[len(b)/2] ^= 0xff
			ts.Check(os.Chmod(name, 0o600))
			ts.Check(os.WriteFile(name, b, 0o600))
		},
		"pemkey": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: pemkey FILE")
			}
			k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			ts.Check(err)
			der, err := x509.MarshalPKCS8PrivateKey(k)
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
		},
		"edit": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 3 {
				ts.Fatalf("usage: edit FILE OLD NEW")
			}
			name := ts.MkAbs(args[0])
			b, err := os.ReadFile(name)
			ts.Check(err)
			if n := strings.Count(string(b), args[1]); n != 1 {
				ts.Fatalf("%s holds %q %d times", args[0], args[1], n)
			}
			st, err := os.Stat(name)
			ts.Check(err)
			ts.Check(os.WriteFile(name, []byte(strings.Replace(string(b), args[1], args[2], 1)), st.Mode().Perm()))
		},
		"setenvfrom": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 2 {
				ts.Fatalf("usage: setenvfrom NAME FILE")
			}
			lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[1])), "\n")
			ts.Setenv(args[0], lines[len(lines)-1])
		},
		"truncate": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 2 {
				ts.Fatalf("usage: truncate FILE SIZE")
			}
			n, err := strconv.ParseInt(args[1], 10, 64)
			ts.Check(err)
			ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
		},
		"flip": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 2 {
				ts.Fatalf("usage: flip FILE OFFSET")
			}
			name := ts.MkAbs(args[0])
			b, err := os.ReadFile(name)
			ts.Check(err)
			n := 0
			if args[1] == "largest" {
				n, err = largest(b)
			} else {
				n, err = strconv.Atoi(args[1])
			}
			ts.Check(err)
			b[n] ^= 0xff
			ts.Check(os.Chmod(name, 0o600))
			ts.Check(os.WriteFile(name, b, 0o600))
		},
	}
	maps.Copy(cmds, deployScriptCommands())
	maps.Copy(cmds, policyScriptCommands())
	maps.Copy(cmds, governScriptCommands())
	maps.Copy(cmds, verdictScriptCommands())
	return cmds
}

// largest gives the offset of the middle of a tar's largest file.
func largest(archive []byte) (int, error) {
	r := bytes.NewReader(archive)
	t := tar.NewReader(r)
	at, size := 0, int64(-1)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return at, nil
		}
		if err != nil {
			return 0, err
		}
		if h.Size > size {
			size, at = h.Size, len(archive)-r.Len()+int(h.Size/2)
		}
	}
}

func walk(v any, path []string) (string, error) {
	for _, p := range path {
		switch x := v.(type) {
		case map[string]any:
			y, ok := x[p]
			if !ok {
				return "", fmt.Errorf("no field %q", p)
			}
			v = y
		case []any:
			if p == "#" {
				v = json.Number(strconv.Itoa(len(x)))
				continue
			}
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(x) {
				return "", fmt.Errorf("no element %q of %d", p, len(x))
			}
			v = x[i]
		default:
			return "", fmt.Errorf("nothing below %v", v)
		}
	}
	if s, ok := v.(string); ok {
		return s, nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
}
