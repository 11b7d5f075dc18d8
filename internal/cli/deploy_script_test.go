package cli_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/deploy/awslambda/lambdatest"
)

// faultyLambda is an account on a platform that can be told to misbehave.
type faultyLambda struct {
	*lambdatest.Server
	mu   sync.Mutex
	mode string
}

func (f *faultyLambda) set(mode string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mode = mode
}

// ServeHTTP lets reads pass in the modes that are about changes.
func (f *faultyLambda) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	mode := f.mode
	if strings.HasPrefix(mode, "lost") && r.Method != http.MethodGet {
		f.mode = "" // once
	}
	f.mu.Unlock()
	change := r.Method != http.MethodGet
	switch {
	case mode == "expired":
		lambdatest.Problem(w, http.StatusForbidden, "ExpiredTokenException", "The security token included in the request is expired")
	case mode == "forbidden" && change:
		lambdatest.Problem(w, http.StatusForbidden, "AccessDeniedException", "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: lambda:UpdateFunctionCode")
	case mode == "quota" && change:
		lambdatest.Problem(w, http.StatusBadRequest, "CodeStorageExceededException", "Code storage limit exceeded.")
	case mode == "toolarge" && change:
		lambdatest.Problem(w, http.StatusBadRequest, "InvalidParameterValueException", "The image size exceeds the maximum allowed size of 10 GB.")
	case mode == "lost" && change:
		f.Server.ServeHTTP(httptest.NewRecorder(), r) // it acts, and the connection ends
		panic(http.ErrAbortHandler)
	case mode == "meanwhile" && change: // somebody else is faster, once
		f.set("")
		f.Touch("live")
		f.Server.ServeHTTP(w, r)
	case mode == "gone":
		panic(http.ErrAbortHandler)
	default:
		f.Server.ServeHTTP(w, r)
	}
}

var lambdas = struct {
	sync.Mutex
	m map[string]*faultyLambda // by URL
}{m: map[string]*faultyLambda{}}

// serveProgram builds waybill-serve for this machine's processor, once.
var serveProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "waybill-serve-")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "waybill-serve")
	cmd := exec.Command("go", "build", "-o", name, "./cmd/waybill-serve")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+runtime.GOARCH, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return name, nil
})

// deployCommands:
//
//	serveprogram NAME    set NAME to a waybill-serve for this machine's processor, NAME_ARCH to what that is, NAME_OTHER to another
//	lambda NAME          start an account of AWS Lambda, set NAME to its URL, and the credentials
//	lambdais URL MODE    well, expired, forbidden, quota, toolarge, lost (the answer of one change), meanwhile (somebody else's change comes before it), gone
//	cleanup URL          somebody deletes the versions that have no traffic
//	byhand URL           somebody changes the function's memory
//	fillvars FILE...         replace $NAME by the script's variables
func deployScriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"serveprogram": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: serveprogram NAME")
			}
			name, err := serveProgram()
			ts.Check(err)
			ts.Setenv(args[0], name)
			ts.Setenv(args[0]+"_ARCH", runtime.GOARCH)
			other := "arm64"
			if runtime.GOARCH == other {
				other = "amd64"
			}
			ts.Setenv(args[0]+"_OTHER", other)
		},
		"lambda": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: lambda NAME")
			}
			m, err := lambdatest.LoadModel("")
			ts.Check(err)
			f := &faultyLambda{Server: lambdatest.New(m)}
			s := httptest.NewServer(f)
			ts.Defer(s.Close)
			lambdas.Lock()
			defer lambdas.Unlock()
			lambdas.m[s.URL] = f
			ts.Setenv(args[0], s.URL)
			ts.Setenv("AWS_ACCESS_KEY_ID", f.Creds.ID)
			ts.Setenv("AWS_SECRET_ACCESS_KEY", f.Creds.Secret)
			ts.Setenv("AWS_SESSION_TOKEN", f.Creds.Token)
			ts.Setenv("AWS_EC2_METADATA_DISABLED", "true")
		},
		"lambdais": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 2 {
				ts.Fatalf("usage: lambdais URL MODE")
			}
			lambdas.Lock()
			defer lambdas.Unlock()
			lambdas.m[args[0]].set(strings.TrimPrefix(args[1], "well"))
		},
		"cleanup": func(ts *testscript.TestScript, neg bool, args []string) {
			lambdas.Lock()
			defer lambdas.Unlock()
			lambdas.m[args[0]].Delete("")
		},
		"byhand": func(ts *testscript.TestScript, neg bool, args []string) {
			lambdas.Lock()
			defer lambdas.Unlock()
			lambdas.m[args[0]].Edit(func(f *lambdatest.Function) { f.Memory = 128 })
		},
		"fillvars": func(ts *testscript.TestScript, neg bool, args []string) {
			for _, name := range args {
				ts.Check(os.WriteFile(ts.MkAbs(name), []byte(os.Expand(ts.ReadFile(name), ts.Getenv)), 0o600))
			}
		},
	}
}
