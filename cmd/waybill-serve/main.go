// Command waybill-serve is the server inside an image: it proves one artifact that lies beside it and answers for it until it
// is told to stop. It follows no channel, keeps no state and needs no place to write: updates are another image.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if code, ok := asShell(ctx, os.Args, os.Stdout, os.Stderr); ok {
		os.Exit(code)
	}
	code := run(ctx, os.Args, os.Getenv, os.Stdout, os.Stderr, open)
	stop()
	os.Exit(int(code))
}

// opener proves an artifact and loads it. Tests leave the proof out, to see what it keeps away.
type opener func(ctx context.Context, o *options, log *slog.Logger) (*edge.Opened, error)

// run executes one command line, its first word the program's name, and returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, open opener) diag.Code {
	err := dispatch(ctx, args[1:], getenv, stdout, stderr, open)
	if errors.Is(err, flag.ErrHelp) {
		return diag.OK
	}
	if err != nil {
		fmt.Fprint(stderr, diag.Render(err))
	}
	return diag.CodeOf(err)
}

func dispatch(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, open opener) error {
	if len(args) > 0 {
		switch args[0] {
		case "version", "--version", "-version":
			b := version.Info()
			fmt.Fprintf(stdout, "waybill-serve %s %s/%s %s\n", version.Number, goruntime.GOOS, goruntime.GOARCH, b.Go)
			return nil
		case "help":
			args = []string{"--help"}
		case "serve": // SageMaker gives this word to every image
			args = args[1:]
		case "bake": // waybill image calls it
			return bake(ctx, args[1:], getenv, stdout, stderr, open)
		}
	}
	o, err := parse(args, getenv, stdout)
	if err != nil {
		return tellLambda(ctx, getenv, err)
	}
	return start(ctx, o, getenv, stdout, stderr, toldLambda(getenv, open))
}

// options are what the command line and the environment say. Each flag has a variable, so that an image's configuration says it
// once and a platform can change one of them.
type options struct {
	artifact    string // folder of an OCI layout
	trust       string
	trustDigest string
	model       string
	digest      string
	evidence    []string
	environment string
	channel     string
	asOf        time.Time // zero: the machine's clock
	variant     variant
	listen      string
	cache       string
	code        engine.Baked
	log         string
	grace       time.Duration
	timeout     time.Duration
	maxBody     int64
}

// setting is one flag with its variable.
type setting struct {
	name, variable, value, usage string
	set                          func(o *options, v string) error
}

func settings(getenv func(string) string) []setting {
	text := func(to func(*options) *string) func(*options, string) error {
		return func(o *options, v string) error { *to(o) = v; return nil }
	}
	span := func(to func(*options) *time.Duration) func(*options, string) error {
		return func(o *options, v string) error {
			d, err := time.ParseDuration(v)
			if err == nil && d <= 0 {
				err = errors.New("it is not above 0")
			}
			*to(o) = d
			return err
		}
	}
	return []setting{
		{"artifact", "WAYBILL_ARTIFACT", "", "`DIR` of an OCI layout that holds the artifact and the statements about it", text(func(o *options) *string { return &o.artifact })},
		{"trust", "WAYBILL_TRUST", "", "`FILE` of the signed trust document", text(func(o *options) *string { return &o.trust })},
		{"trust-digest", "WAYBILL_TRUST_DIGEST", "", "`DIGEST` that the trust document must have", text(func(o *options) *string { return &o.trustDigest })},
		{"model", "WAYBILL_MODEL", "", "`NAME` that the artifact must have been released under", text(func(o *options) *string { return &o.model })},
		{"digest", "WAYBILL_DIGEST", "", "`DIGEST` of the artifact; without it the layout holds one only", text(func(o *options) *string { return &o.digest })},
		{"evidence", "WAYBILL_EVIDENCE", "", "predicate `TYPES`, separated by commas, of statements that must be there besides the release", func(o *options, v string) error {
			for _, t := range strings.Split(v, ",") {
				if t = strings.TrimSpace(t); t != "" {
					o.evidence = append(o.evidence, t)
				}
			}
			return nil
		}},
		{"environment", "WAYBILL_ENVIRONMENT", "", "`NAME` of the environment that such statements are about", text(func(o *options) *string { return &o.environment })},
		{"channel", "WAYBILL_CHANNEL", "", "`NAME` of the channel that such statements are about", text(func(o *options) *string { return &o.channel })},
		{"as-of", "WAYBILL_AS_OF", "", "judge what expires as of that `TIME` (RFC 3339), when it was let in, and not as of now", func(o *options, v string) (err error) {
			o.asOf, err = time.Parse(time.RFC3339, v)
			return err
		}},
		{"variant", "WAYBILL_VARIANT", unsaid(getenv), "`PLATFORM` that is spoken to: " + strings.Join(variantNames(), ", ") + "; without it lambda where AWS_LAMBDA_RUNTIME_API is set", func(o *options, v string) error {
			for _, x := range variants() {
				if x.name == v {
					o.variant = x
					return nil
				}
			}
			return fmt.Errorf("it is none of %s", strings.Join(variantNames(), ", "))
		}},
		{"listen", "WAYBILL_LISTEN", "", "`ADDRESS` to answer on; without it every address, on the port that the platform names", func(o *options, v string) error {
			o.listen = v
			_, _, err := net.SplitHostPort(v)
			return err
		}},
		{"cache", "WAYBILL_CACHE", "", "`DIR`, of this process alone, to keep compiled code in between starts on one machine", text(func(o *options) *string { return &o.cache })},
		{"code", "WAYBILL_CODE", "", "`DIR` of compiled code that came along with this program", text(func(o *options) *string { return &o.code.Dir })},
		{"code-digest", "WAYBILL_CODE_DIGEST", "", "`DIGEST` that the index of this code must have", text(func(o *options) *string { return &o.code.Digest })},
		{"log", "WAYBILL_LOG", "json", "`FORMAT` of the log: json (Elastic Common Schema) or text", func(o *options, v string) error {
			if o.log = v; v != "json" && v != "text" {
				return errors.New("it is neither json nor text")
			}
			return nil
		}},
		{"grace", "WAYBILL_GRACE", "8s", "`TIME` that running requests have once the process is asked to stop", span(func(o *options) *time.Duration { return &o.grace })},
		{"timeout", "WAYBILL_TIMEOUT", "30s", "`TIME` of one request", span(func(o *options) *time.Duration { return &o.timeout })},
		{"max-body", "WAYBILL_MAX_BODY", "33554432", "`BYTES` of one request", func(o *options, v string) error {
			_, err := fmt.Sscanf(v, "%d", &o.maxBody)
			if err == nil && (o.maxBody <= 0 || o.maxBody > 1<<30) {
				err = errors.New("it is not between 1 and 1 GiB")
			}
			return err
		}},
	}
}

// parse reads flags, and variables for those that are not given.
func parse(args []string, getenv func(string) string, stdout io.Writer) (*options, error) {
	f := flag.NewFlagSet("waybill-serve", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {} // the library prints it for every mistake, and the mistake is lost in it
	all := settings(getenv)
	values := make([]*string, len(all))
	var known []string
	for i, s := range all {
		values[i] = f.String(s.name, s.value, s.usage+" ($"+s.variable+")")
		known = append(known, s.name)
	}
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stdout, "waybill-serve %s: answers for one signed model\n\nusage: waybill-serve [serve] [FLAGS]\n\n", version.Number)
		f.SetOutput(stdout)
		f.PrintDefaults()
		return nil, err
	}
	if err != nil {
		e := diag.Wrap(diag.Usage, err, "waybill-serve")
		if _, name, ok := strings.Cut(err.Error(), "not defined: -"); ok {
			if near := diag.Nearest(name, known); near != "" {
				return nil, e.Hint("did you mean --%s?", near)
			}
		}
		return nil, e.Hint("waybill-serve --help")
	}
	if f.NArg() > 0 {
		return nil, diag.New(diag.Usage, "surplus argument %q", f.Arg(0)).Hint("waybill-serve --help")
	}
	given := map[string]bool{}
	f.Visit(func(x *flag.Flag) { given[x.Name] = true })
	o := &options{}
	for i, s := range all {
		v, from := *values[i], "--"+s.name
		if e := getenv(s.variable); e != "" && !given[s.name] {
			v, from = e, s.variable
		}
		if v == "" && !given[s.name] {
			continue
		}
		if err := s.set(o, v); err != nil {
			return nil, diag.Wrap(diag.Usage, err, "%s is %q", from, v).Hint("waybill-serve --help")
		}
	}
	for name, v := range map[string]string{"artifact": o.artifact, "trust": o.trust, "trust-digest": o.trustDigest, "model": o.model} {
		if v == "" {
			e := diag.New(diag.Usage, "no --%s: without it there is nothing to prove the model by", name)
			return nil, e.Hint("waybill-serve --artifact DIR --trust FILE --trust-digest sha256:... --model NAME")
		}
	}
	return o, nil
}
