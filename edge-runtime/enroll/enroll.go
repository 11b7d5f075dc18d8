// Package enroll makes a device's folder: its key, the request for the operator, and, from a provisioning file, its configuration.
package enroll

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"path/filepath"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/devicepolicy"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Options are what enroll is asked for.
type Options struct {
	Out          string            // the device's folder
	Class        string            // of the device; "": that of the provisioning file, or of the request before
	Labels       map[string]string // an empty value removes the label
	Listen       string
	Key          string // URI of a device key on a token; "": a file that is made in the folder
	DevicePolicy string // file of the device's own policy
	Provision    string // file from the operator; or, in its place:
	Follow       Follow
	Credentials  CredentialSource
	Post         config.Report // where the request is handed in; no URL: nowhere
}

// result is what became of it.
type result struct {
	Request    *fleet.Request
	Configured bool // the folder has a configuration
}

// Install makes the device key, unless there is one, and the request for the operator; with a provisioning file also the
// configuration. Running it again changes nothing that is there but what the provisioning file and the flags say anew. The
// result is there, with an error, when the device is enrolled and only its request could not be handed in. warn hears of
// what a person should look at.
func Install(ctx context.Context, o Options, warn func(line string)) (*result, error) {
	if o.Out == "" {
		return nil, diag.New(diag.Usage, "enroll: --out is missing").Hint("waybill-edge enroll --out DIR --class edge-s")
	}
	in := enrolment{class: o.Class, labels: o.Labels, listen: o.Listen, key: o.Key}
	host := ""
	switch {
	case (o.Follow.Trust != "" || o.Follow.Repo != "") && o.Provision != "":
		return nil, diag.New(diag.Usage, "enroll: --provision and --trust or --follow exclude each other")
	case o.Follow.Trust != "" || o.Follow.Repo != "":
		in.source = "the flags"
		p, trustFile, err := o.Follow.provisioning()
		if err != nil {
			return nil, err
		}
		in.given, in.trust, host = &p, trustFile, p.Channels[0].Registry
	case o.Provision != "":
		in.source = o.Provision
		p, trustFile, err := readProvisioning(o.Provision)
		if err != nil {
			return nil, err
		}
		in.given, in.trust = &p, trustFile
		if len(p.Credentials) > 0 && config.Private(o.Provision, "") != nil {
			warn(fmt.Sprintf("%s holds a registry credential and may be read by others; remove it now, or: chmod 600 %s", o.Provision, o.Provision))
		}
	}
	err := in.checkNames()
	if err != nil {
		return nil, err
	}
	if in.credentials, err = o.Credentials.read(host); err != nil {
		return nil, err
	}
	if in.given != nil {
		if in.policy, err = readDevicePolicy(cmp.Or(o.DevicePolicy, in.given.DevicePolicy)); err != nil {
			return nil, err
		}
	}
	poster, err := newPoster(o.Post)
	if err != nil {
		return nil, err
	}
	unlock, err := takeFolder(ctx, o.Out)
	if err != nil {
		return nil, err
	}
	defer unlock()
	res, err := in.install(ctx, fsx.OS{}, o.Out)
	if err != nil {
		return nil, err
	}
	if poster != nil {
		return res, poster.post(ctx, res.Request)
	}
	return res, nil
}

// readProvisioning reads the operator's file and checks the trust document against the version and digest that it gives.
func readProvisioning(path string) (config.Provisioning, []byte, error) {
	var p config.Provisioning
	raw, err := config.ReadFile(path, config.MaxSize)
	if err != nil {
		return p, nil, err
	}
	if err := config.Decode(path, raw, &p); err != nil {
		return p, nil, err
	}
	if p.Schema != config.SchemaProvisioning {
		return p, nil, diag.New(diag.Usage, "read %s: schema is %q, this version reads %q", path, p.Schema, config.SchemaProvisioning)
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
		if file, err = config.ReadFile(name, artifact.MaxBundle); err != nil {
			return p, nil, err
		}
	}
	if _, err := verify.TrustPinned(file, p.Trust.Version, p.Trust.Digest); err != nil {
		return p, nil, fmt.Errorf("trust document in %s: %w", path, err)
	}
	if err := checkGiven(&p, path); err != nil {
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
	return config.ReadFile(path, devicepolicy.MaxModule)
}

// Follow is a provisioning file of one channel, as flags.
type Follow struct {
	Trust, Digest                       string
	Repo, Channel, Env, Model, Resource string
	PlainHTTP                           bool
	CAFile, ClientCert, ClientKey       string
	Trial                               config.Trial
	Interval                            time.Duration
	Duration, P50, P99                  time.Duration
}

func (o *Follow) provisioning() (config.Provisioning, []byte, error) {
	var p config.Provisioning
	for _, m := range []struct{ flag, v string }{{"--trust", o.Trust}, {"--trust-digest", o.Digest}, {"--follow", o.Repo}} {
		if m.v == "" {
			return p, nil, diag.New(diag.Usage, "enroll: %s is missing", m.flag).Hint("waybill-edge enroll --help")
		}
	}
	digest, err := artifact.ParseDigest(o.Digest)
	if err != nil {
		return p, nil, diag.Wrap(diag.Usage, err, "enroll: --trust-digest")
	}
	ref, err := registry.ParseRef(o.Repo)
	if err != nil {
		return p, nil, fmt.Errorf("enroll: --follow: %w", err)
	}
	if ref.Kind != registry.KindRemote || ref.Digest != "" {
		return p, nil, diag.New(diag.Usage, "enroll: --follow: %q is not REGISTRY/REPO", o.Repo)
	}
	file, err := config.ReadFile(o.Trust, artifact.MaxBundle)
	if err != nil {
		return p, nil, err
	}
	// The digest pins document and version; the version is read from what the digest pins.
	doc, err := verify.TrustSelf(file)
	if err == nil {
		_, err = verify.TrustPinned(file, doc.Version, digest)
	}
	if err != nil {
		return p, nil, fmt.Errorf("trust document %s: %w", o.Trust, err)
	}
	for _, name := range []*string{&o.CAFile, &o.ClientCert, &o.ClientKey} {
		if *name == "" {
			continue
		}
		if *name, err = filepath.Abs(*name); err != nil { // the configuration lies in another folder
			return p, nil, diag.Wrap(diag.Failure, err, "enroll")
		}
	}
	o.Trial.Duration, o.Trial.P50, o.Trial.P99 = config.Duration(o.Duration), config.Duration(o.P50), config.Duration(o.P99)
	c := config.Channel{
		Name: o.Channel, Env: cmp.Or(o.Env, o.Channel), Registry: ref.Host, Repo: ref.Repo, PlainHTTP: o.PlainHTTP,
		CAFile: o.CAFile, ClientCert: o.ClientCert, ClientKey: o.ClientKey,
		Model: cmp.Or(o.Model, path.Base(ref.Repo)), ResourceURI: cmp.Or(o.Resource, "waybill:"+ref.Repo),
		Interval: config.Duration(o.Interval), Trial: o.Trial,
	}
	if _, err := c.Remote(); err != nil { // certificates that cannot be used
		return p, nil, fmt.Errorf("enroll: %w", err)
	}
	return config.Provisioning{
		Schema: config.SchemaProvisioning, Trust: config.ProvisionedTrust{Version: doc.Version, Digest: digest}, Channels: []config.Channel{c},
	}, file, nil
}
