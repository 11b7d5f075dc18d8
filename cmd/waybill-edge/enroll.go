package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/devicepolicy"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/verify"
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

// enroll makes the device key, unless there is one, and the request for the operator; with a provisioning file also the
// configuration. Running it again changes nothing that is there but what the provisioning file and the flags say anew.
func enroll(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("enroll", "enroll --out DIR --class CLASS [--label KEY=VALUE]... [--provision FILE | --trust FILE --trust-digest DIGEST --follow REGISTRY/REPO ...]", stderr)
	out := f.String("out", "", "`DIR` for the key, the request and the configuration (made with mode 0700)")
	class := f.String("class", "", "device `CLASS`, as gates and channels name it")
	listen := f.String("listen", "", "`ADDR` to serve on (default 127.0.0.1:8080, or what the provisioning file says)")
	devicePolicy := f.String("device-policy", "", "`FILE` of the device's own policy (waybill policy pack --device), copied to DIR")
	provision := f.String("provision", "", "`FILE` from the operator: trust document, channels")
	key := f.String("key", "", "`URI` of a device key on a token (pkcs11:...), in place of the file that is made in DIR")
	var post postFlags
	post.add(f)
	var fo followFlags
	fo.add(f)
	var co credentialFlags
	co.add(f)
	labels := labelFlag{}
	f.Var(labels, "label", "a `KEY=VALUE` of this device; may be given again")
	if err := f.parse(args); err != nil {
		return err
	}
	if *out == "" {
		return diag.New(diag.Usage, "enroll: --out is missing").Hint("waybill-edge enroll --out DIR --class edge-s")
	}
	in := enrolment{class: *class, labels: labels, listen: *listen, key: *key}
	host := ""
	switch {
	case (fo.trust != "" || fo.follow != "") && *provision != "":
		return diag.New(diag.Usage, "enroll: --provision and --trust or --follow exclude each other")
	case fo.trust != "" || fo.follow != "":
		in.source = "the flags"
		p, trustFile, err := fo.provisioning()
		if err != nil {
			return err
		}
		in.given, in.trust, host = &p, trustFile, p.Channels[0].Registry
	case *provision != "":
		in.source = *provision
		p, trustFile, err := readProvisioning(*provision)
		if err != nil {
			return err
		}
		in.given, in.trust = &p, trustFile
		if len(p.Credentials) > 0 && private(*provision, "") != nil {
			fmt.Fprintf(stderr, "warning: %s holds a registry credential and may be read by others; remove it now, or: chmod 600 %s\n", *provision, *provision)
		}
	}
	var err error
	if in.credentials, err = co.read(host); err != nil {
		return err
	}
	if in.given != nil {
		if in.policy, err = readDevicePolicy(first(*devicePolicy, in.given.DevicePolicy)); err != nil {
			return err
		}
	}
	poster, err := post.poster()
	if err != nil {
		return err
	}
	unlock, err := takeFolder(ctx, *out)
	if err != nil {
		return err
	}
	defer unlock()
	res, err := in.install(ctx, fsx.OS{}, *out)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, res.request.Device)
	fmt.Fprintf(stderr, "device %s, class %s\n", res.request.Device[:12], res.request.Class)
	if poster != nil {
		if err := poster.post(ctx, res.request); err != nil {
			return err
		}
	}
	if !res.configured {
		fmt.Fprintf(stderr, "give %s to the operator, then: waybill-edge enroll --out %s --provision FILE\n", filepath.Join(*out, "request.json"), *out)
	} else {
		fmt.Fprintf(stderr, "next: waybill-edge run --config %s\n", filepath.Join(*out, "config.json"))
	}
	return nil
}

// readProvisioning reads the operator's file and checks the trust document against the version and digest that it gives.
func readProvisioning(path string) (provisioning, []byte, error) {
	var p provisioning
	raw, err := readFile(path, maxConfig)
	if err != nil {
		return p, nil, err
	}
	if err := decode(path, raw, &p); err != nil {
		return p, nil, err
	}
	if p.Schema != schemaProvisioning {
		return p, nil, diag.New(diag.Usage, "read %s: schema is %q, this version reads %q", path, p.Schema, schemaProvisioning)
	}
	file := []byte(p.Trust.Bundle)
	if (len(file) == 0) == (p.Trust.File == "") {
		return p, nil, diag.New(diag.Usage, "read %s: trust needs either file or bundle", path)
	}
	if p.Trust.File != "" {
		name := p.Trust.File
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		if file, err = readFile(name, artifact.MaxBundle); err != nil {
			return p, nil, err
		}
	}
	if _, err := verify.TrustPinned(file, p.Trust.Version, p.Trust.Digest); err != nil {
		return p, nil, fmt.Errorf("trust document in %s: %w", path, err)
	}
	if err := p.checkGiven(path); err != nil {
		return p, nil, err
	}
	if p.DevicePolicy != "" && !filepath.IsAbs(p.DevicePolicy) {
		p.DevicePolicy = filepath.Join(filepath.Dir(path), p.DevicePolicy)
	}
	return p, file, nil
}

// readDevicePolicy reads the policy that enroll copies; nil when path is "".
func readDevicePolicy(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	return readFile(path, devicepolicy.MaxModule)
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

// followFlags are a provisioning file of one channel, as flags.
type followFlags struct {
	trust, digest                         string
	follow, channel, env, model, resource string
	plain                                 bool
	ca, cert, key                         string
	trial                                 trialConfig
	interval                              time.Duration
	duration, p50, p99                    time.Duration
}

func (o *followFlags) add(f *flags) {
	f.StringVar(&o.trust, "trust", "", "signed trust document `FILE`")
	f.StringVar(&o.digest, "trust-digest", "", "`DIGEST` that the trust document must have; get it from whoever signs it, not from where the file came from")
	f.StringVar(&o.follow, "follow", "", "`REGISTRY/REPO` that carries the channel")
	f.StringVar(&o.channel, "channel", "prod", "`NAME` of the channel")
	f.StringVar(&o.env, "env", "", "`ENVIRONMENT` that records must be for (default: the channel's name)")
	f.StringVar(&o.model, "model", "", "`NAME` of the model (default: the last part of the repository)")
	f.StringVar(&o.resource, "resource-uri", "", "`URI` that verdicts must be about (default: waybill:REPO)")
	f.BoolVar(&o.plain, "plain-http", false, "allow http to a registry on another machine")
	f.StringVar(&o.ca, "ca-file", "", "believe the certificate authorities in `FILE` too (PEM)")
	f.StringVar(&o.cert, "client-cert", "", "certificate in `FILE` (PEM) that a registry with mutual TLS sees")
	f.StringVar(&o.key, "client-key", "", "its key in `FILE` (PEM)")
	f.DurationVar(&o.interval, "interval", 5*time.Minute, "`TIME` between two looks at the channel")
	f.DurationVar(&o.duration, "trial", time.Minute, "`TIME` that a new model serves on probation")
	f.Int64Var(&o.trial.MinRequests, "min-requests", 20, "`COUNT` of requests from which a trial is judged")
	f.Float64Var(&o.trial.MaxErrorRate, "max-error-rate", 0.01, "`SHARE` of requests that may fail in a trial")
	f.DurationVar(&o.p50, "p50", 0, "`TIME` that half of the inferences must stay within in a trial (default: no limit)")
	f.DurationVar(&o.p99, "p99", 0, "`TIME` that 99 in 100 inferences must stay within in a trial (default: no limit)")
}

func (o *followFlags) provisioning() (provisioning, []byte, error) {
	var p provisioning
	for _, m := range []struct{ flag, v string }{{"--trust", o.trust}, {"--trust-digest", o.digest}, {"--follow", o.follow}} {
		if m.v == "" {
			return p, nil, diag.New(diag.Usage, "enroll: %s is missing", m.flag).Hint("waybill-edge enroll --help")
		}
	}
	digest, err := artifact.ParseDigest(o.digest)
	if err != nil {
		return p, nil, diag.Wrap(diag.Usage, err, "enroll: --trust-digest")
	}
	ref, err := registry.ParseRef(o.follow)
	if err != nil {
		return p, nil, fmt.Errorf("enroll: --follow: %w", err)
	}
	if ref.Kind != registry.KindRemote || ref.Digest != "" {
		return p, nil, diag.New(diag.Usage, "enroll: --follow: %q is not REGISTRY/REPO", o.follow)
	}
	file, err := readFile(o.trust, artifact.MaxBundle)
	if err != nil {
		return p, nil, err
	}
	// The digest pins document and version; the version is read from what the digest pins.
	doc, err := verify.TrustSelf(file)
	if err == nil {
		_, err = verify.TrustPinned(file, doc.Version, digest)
	}
	if err != nil {
		return p, nil, fmt.Errorf("trust document %s: %w", o.trust, err)
	}
	for _, name := range []*string{&o.ca, &o.cert, &o.key} {
		if *name == "" {
			continue
		}
		if *name, err = filepath.Abs(*name); err != nil { // the configuration lies in another folder
			return p, nil, diag.Wrap(diag.Failure, err, "enroll")
		}
	}
	o.trial.Duration, o.trial.P50, o.trial.P99 = duration(o.duration), duration(o.p50), duration(o.p99)
	c := channelConfig{
		Name: o.channel, Env: first(o.env, o.channel), Registry: ref.Host, Repo: ref.Repo, PlainHTTP: o.plain,
		CAFile: o.ca, ClientCert: o.cert, ClientKey: o.key,
		Model: first(o.model, path.Base(ref.Repo)), ResourceURI: first(o.resource, "waybill:"+ref.Repo),
		Interval: duration(o.interval), Trial: o.trial,
	}
	if _, err := c.remote(); err != nil { // certificates that cannot be used
		return p, nil, fmt.Errorf("enroll: %w", err)
	}
	return provisioning{
		Schema: schemaProvisioning, Trust: provisionedTrust{Version: doc.Version, Digest: digest}, Channels: []channelConfig{c},
	}, file, nil
}
