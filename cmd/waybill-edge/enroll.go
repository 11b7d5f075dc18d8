package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/enroll"
	"github.com/waybill-ml/waybill/oci/fleet"
)

// labelFlag collects --label key=value.
type labelFlag map[string]string

func (l labelFlag) String() string { return "" }

func (l labelFlag) Set(s string) error {
	k, v, ok := strings.Cut(s, "=")
	if !ok || k == "" || v == "" {
		return fmt.Errorf("%q is not KEY=VALUE", s)
	}
	l[k] = v
	return nil
}

// enrollCommand makes the device's folder.
func enrollCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("enroll", "enroll --out DIR --class CLASS [--label KEY=VALUE]... [--provision FILE | --trust FILE --trust-digest DIGEST --follow REGISTRY/REPO ...]", stderr)
	o := enroll.Options{Labels: map[string]string{}}
	f.StringVar(&o.Out, "out", "", "`DIR` for the key, the request and the configuration (made with mode 0700)")
	f.StringVar(&o.Class, "class", "", "device `CLASS`, as gates and channels name it")
	f.StringVar(&o.Listen, "listen", "", "`ADDR` to serve on (default 127.0.0.1:8080, or what the provisioning file says)")
	f.StringVar(&o.DevicePolicy, "device-policy", "", "`FILE` of the device's own policy (waybill policy pack --device), copied to DIR")
	f.StringVar(&o.Provision, "provision", "", "`FILE` from the operator: trust document, channels")
	f.StringVar(&o.Key, "key", "", "`URI` of a device key on a token (pkcs11:...), in place of the file that is made in DIR")
	f.StringVar(&o.Post.URL, "post", "", "`URL` that the request is POSTed to as JSON, once DIR is written")
	f.StringVar(&o.Post.TokenFile, "post-token-file", "", "bearer token for it in `FILE`")
	followFlags(f, &o.Follow)
	credentialFlags(f, &o.Credentials)
	f.Var(labelFlag(o.Labels), "label", "a `KEY=VALUE` of this device; may be given again")
	if err := f.parse(args); err != nil {
		return err
	}
	res, err := enroll.Install(ctx, o, func(line string) { fmt.Fprintln(stderr, "warning: "+line) })
	if res == nil {
		return err
	}
	fmt.Fprintln(stdout, res.Request.Device)
	fmt.Fprintf(stderr, "device %s, class %s\n", res.Request.Device[:12], res.Request.Class)
	if err != nil {
		return err
	}
	if !res.Configured {
		fmt.Fprintf(stderr, "give %s to the operator, then: waybill-edge enroll --out %s --provision FILE\n", filepath.Join(o.Out, "request.json"), o.Out)
	} else {
		fmt.Fprintf(stderr, "next: waybill-edge run --config %s\n", filepath.Join(o.Out, "config.json"))
	}
	return nil
}

// credentialFlags are those of a credential. There is none for the password itself: other users of the machine can read
// command lines.
func credentialFlags(f *flags, o *enroll.CredentialSource) {
	f.StringVar(&o.File, "credential", "", "`FILE` of registry credentials (schema "+fleet.SchemaCredentials+"), copied to DIR with mode 0600")
	f.StringVar(&o.Username, "username", "", "`NAME` for the registry of --follow")
	f.StringVar(&o.Password, "password-file", "", "its password in `FILE`; - reads stdin")
	f.StringVar(&o.Token, "token-file", "", "a token for the registry of --follow in `FILE`, in place of both; - reads stdin")
}

// followFlags are a provisioning file of one channel.
func followFlags(f *flags, o *enroll.Follow) {
	f.StringVar(&o.Trust, "trust", "", "signed trust document `FILE`")
	f.StringVar(&o.Digest, "trust-digest", "", "`DIGEST` that the trust document must have; get it from whoever signs it, not from where the file came from")
	f.StringVar(&o.Repo, "follow", "", "`REGISTRY/REPO` that carries the channel")
	f.StringVar(&o.Channel, "channel", "prod", "`NAME` of the channel")
	f.StringVar(&o.Env, "env", "", "`ENVIRONMENT` that records must be for (default: the channel's name)")
	f.StringVar(&o.Model, "model", "", "`NAME` of the model (default: the last part of the repository)")
	f.StringVar(&o.Resource, "resource-uri", "", "`URI` that verdicts must be about (default: waybill:REPO)")
	f.BoolVar(&o.PlainHTTP, "plain-http", false, "allow http to a registry on another machine")
	f.StringVar(&o.CAFile, "ca-file", "", "believe the certificate authorities in `FILE` too (PEM)")
	f.StringVar(&o.ClientCert, "client-cert", "", "certificate in `FILE` (PEM) that a registry with mutual TLS sees")
	f.StringVar(&o.ClientKey, "client-key", "", "its key in `FILE` (PEM)")
	f.DurationVar(&o.Interval, "interval", 5*time.Minute, "`TIME` between two looks at the channel")
	f.DurationVar(&o.Duration, "trial", time.Minute, "`TIME` that a new model serves on probation")
	f.Int64Var(&o.Trial.MinRequests, "min-requests", 20, "`COUNT` of requests from which a trial is judged")
	f.Float64Var(&o.Trial.MaxErrorRate, "max-error-rate", 0.01, "`SHARE` of requests that may fail in a trial")
	f.DurationVar(&o.P50, "p50", 0, "`TIME` that half of the inferences must stay within in a trial (default: no limit)")
	f.DurationVar(&o.P99, "p99", 0, "`TIME` that 99 in 100 inferences must stay within in a trial (default: no limit)")
}
