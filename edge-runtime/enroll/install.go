package enroll

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/owner"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/fleet"
)

// Files in a device's folder besides credentialFile and trust-N.jsonl.
const (
	KeyFile     = "device.key"
	publicFile  = "device.pub"
	RequestFile = "request.json"
	ConfigFile  = "config.json"
	policyFile  = "device-policy.wasm"
	trustName   = "trust-%d.jsonl"
)

// enrolment is what one run of enroll was told.
type enrolment struct {
	class, listen, key string
	labels             map[string]string    // an empty value removes the label
	source             string               // of given, for messages
	given              *config.Provisioning // nil: only the key and the request
	trust              []byte               // the document that given names
	policy             []byte               // the device's own; nil: none
	credentials        []fleet.Credential
}

// enrollWait bounds the wait for another enroll in the same folder.
const enrollWait = time.Minute

// takeFolder makes the device's folder, or looks at the one that is there, and keeps other runs of enroll out of it.
func takeFolder(ctx context.Context, dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, diag.Wrap(diag.Failure, err, "enroll")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "enroll")
	}
	if uid, ok := owner.Of(dir); ok && uid != os.Geteuid() {
		return nil, diag.New(diag.Failure, "enroll: the folder %s belongs to user %d, this is user %d", dir, uid, os.Geteuid()).
			Line("the agent, as its owner, could not read what is written there now").Hint("sudo -u '#%d' waybill-edge enroll --out %s", uid, dir)
	}
	if info.Mode().Perm()&0o022 != 0 && os.PathSeparator == '/' {
		return nil, diag.New(diag.Failure, "enroll: others may write to the folder %s (mode %04o), and so exchange the key", dir, info.Mode().Perm()).Hint("chmod 700 %s", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "enroll")
	}
	ctx, cancel := context.WithTimeout(ctx, enrollWait)
	defer cancel()
	unlock, err := fsx.LockRemovable(ctx, root, ".enroll.lock", nil)
	if err != nil {
		_ = root.Close()
		return nil, diag.Wrap(diag.Failure, err, "enroll: another enroll works in %s", dir)
	}
	return func() {
		_ = unlock(true) // the lock ends with the file; a file that is left is taken again
		_ = root.Close()
	}, nil
}

// install writes the folder. Each file appears whole or not at all, the key first and the configuration, which names
// the others, last: wherever it is cut off, running it again completes it, as the same device.
func (in *enrolment) install(ctx context.Context, fsys fsx.FS, dir string) (*result, error) {
	fail := func(err error) error {
		var d *diag.Error
		if errors.As(err, &d) {
			return err
		}
		return diag.Wrap(diag.Failure, err, "enroll")
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return nil, fail(err)
	}
	if err := fsys.SyncDir(filepath.Dir(dir)); err != nil {
		return nil, fail(err)
	}
	if err := sweep(fsys, dir); err != nil {
		return nil, fail(err)
	}
	was, err := readRequest(fsys, dir)
	if err != nil {
		return nil, fail(err)
	}
	old, err := oldConfig(fsys, dir)
	if err != nil {
		return nil, err
	}
	key, ref, err := in.deviceKey(ctx, fsys, dir, was, old)
	if err != nil {
		return nil, fail(err)
	}
	if g := in.given; g != nil && g.Device != "" && g.Device != key.KeyID() {
		return nil, diag.New(diag.Usage, "%s is for device %.12s, this is device %.12s", in.source, g.Device, key.KeyID()).Hint("waybill-edge enroll --out %s --provision FILE", dir)
	}
	class, labels, err := in.identity(was, dir)
	if err != nil {
		return nil, err
	}
	req, err := fleet.NewRequest(key, class, labels, was)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "enroll")
	}
	w := writer{fsys: fsys, dir: dir}
	w.put(publicFile, []byte(req.Public))
	w.putJSON(RequestFile, req)
	c, err := in.config(old, ref, class, labels)
	if err != nil {
		return nil, err
	}
	drop := false
	if c != nil {
		anew := in.credentials
		if in.given != nil {
			anew = append(append([]fleet.Credential{}, in.given.Credentials...), in.credentials...)
			drop = in.given.Credentials != nil && len(anew) == 0
		}
		secret, err := giveCredentials(fsys, dir, c.Channels, anew, drop)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(c.Check(), c.CheckZones()); err != nil {
			return nil, diag.Wrap(diag.Usage, err, "read %s", cmp.Or(in.source, filepath.Join(dir, ConfigFile)))
		}
		if in.given != nil {
			w.put(c.Trust.File, in.trust)
		}
		if in.policy != nil {
			w.put(policyFile, in.policy)
		}
		if secret != nil {
			w.put(config.CredentialFile, secret)
		}
		w.putJSON(ConfigFile, c)
	} else if len(in.credentials) > 0 {
		return nil, diag.New(diag.Usage, "enroll: a registry credential for a device that follows nothing yet").Hint("waybill-edge enroll --out %s --provision FILE", dir)
	}
	w.sync()
	if w.err != nil {
		return nil, fail(w.err)
	}
	if c != nil {
		if err := clearOld(fsys, dir, c, drop); err != nil {
			return nil, fail(err)
		}
	}
	return &result{req, c != nil}, nil
}

// identity is what the device says of itself: what it said before, changed by the provisioning file and then the flags.
func (in *enrolment) identity(was *fleet.Request, dir string) (class string, labels map[string]string, err error) {
	labels = map[string]string{}
	class = in.class
	if in.given != nil {
		class = cmp.Or(class, in.given.Class)
	}
	if was != nil {
		class = cmp.Or(class, was.Class)
		maps.Copy(labels, was.Labels)
	}
	if in.given != nil {
		maps.Copy(labels, in.given.Labels)
	}
	maps.Copy(labels, in.labels)
	maps.DeleteFunc(labels, func(_, v string) bool { return v == "" })
	if class == "" {
		return "", nil, diag.New(diag.Usage, "enroll: --class is missing").Hint("waybill-edge enroll --out %s --class edge-s", dir)
	}
	return class, labels, nil
}

// config is the configuration that results: the one that is there, with what was said anew; nil when there is neither.
func (in *enrolment) config(old *config.Config, key, class string, labels map[string]string) (*config.Config, error) {
	c := old
	if c == nil && in.given == nil {
		return nil, nil
	}
	if c == nil {
		c = &config.Config{State: "state"}
	}
	c.Schema, c.Key, c.Class, c.Labels = config.Schema, key, class, labels
	c.Listen = cmp.Or(in.listen, c.Listen, "127.0.0.1:8080")
	g := in.given
	if g == nil {
		return c, nil
	}
	c.Listen = cmp.Or(in.listen, g.Listen, c.Listen)
	c.Trust = config.Trust{File: fmt.Sprintf(trustName, g.Trust.Version), Version: g.Trust.Version, Digest: g.Trust.Digest}
	c.Channels = g.Channels
	if in.policy != nil {
		c.DevicePolicy = policyFile
	}
	if g.Sensors.Root != "" || g.Sensors.Metered != nil {
		c.Sensors = g.Sensors
	}
	if g.Reports != nil {
		c.Reports = g.Reports
	}
	if g.Reserve > 0 {
		c.Reserve = g.Reserve
	}
	c.Carry = g.Carry
	return c, nil
}

// deviceKey opens the key of the device, or makes one for a folder that never had a device. ref is how the
// configuration names it. A folder that was another device's is refused: a device has one identity.
func (in *enrolment) deviceKey(ctx context.Context, fsys fsx.FS, dir string, was *fleet.Request, old *config.Config) (*devicekey.Key, string, error) {
	ref := in.key
	if in.given != nil {
		ref = cmp.Or(ref, in.given.Key)
	}
	if old != nil {
		ref = cmp.Or(ref, old.Key)
	}
	ref = cmp.Or(ref, KeyFile)
	var key *devicekey.Key
	var err error
	if devicekey.IsURI(ref) {
		if key, err = devicekey.Open(ctx, ref, os.Getenv); err != nil {
			return nil, "", err
		}
	} else {
		path := ref
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		key, err = config.ReadKey(fsys, path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && was != nil:
			return nil, "", diag.New(diag.Failure, "enroll: the key %s of device %.12s is gone", path, was.Device).
				Line("a new key would be a new device, which nobody knows").Hint("put the key back, or for a new device: rm %s", filepath.Join(dir, RequestFile))
		case errors.Is(err, fs.ErrNotExist):
			key, err = makeKey(fsys, path)
		}
		if err != nil {
			return nil, "", err
		}
	}
	if was != nil && was.Device != key.KeyID() {
		return nil, "", diag.New(diag.Usage, "enroll: the folder %s is that of device %.12s, the key %s is that of device %.12s", dir, was.Device, ref, key.KeyID()).
			Hint("waybill-edge enroll --out ANOTHER-DIR --class CLASS")
	}
	return key, ref, nil
}

func makeKey(fsys fsx.FS, path string) (*devicekey.Key, error) {
	key, err := devicekey.Generate(nil)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "make the device key")
	}
	pem, err := key.Encode()
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "make the device key")
	}
	if err := fsx.WriteFileAtomic(fsys, path, pem, 0o600); err != nil {
		return nil, diag.Wrap(diag.Failure, err, "make the device key")
	}
	return key, nil
}

// readRequest reads the request that the device made before; nil when there is none.
func readRequest(fsys fsx.FS, dir string) (*fleet.Request, error) {
	path := filepath.Join(dir, RequestFile)
	raw, err := fsx.ReadFile(fsys, path, fleet.MaxRequest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := fleet.ParseRequest(raw)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read %s, which was altered", path).Hint("rm %s", path)
	}
	return r, nil
}

// oldConfig reads the configuration that is there; nil when there is none. Paths stay as they are written.
func oldConfig(fsys fsx.FS, dir string) (*config.Config, error) {
	path := filepath.Join(dir, ConfigFile)
	raw, err := fsx.ReadFile(fsys, path, config.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read %s", path)
	}
	c := &config.Config{}
	if err := config.Decode(path, raw, c); err != nil {
		return nil, err
	}
	return c, nil
}

// sweep removes what a run that was cut off left half written. Nothing refers to it.
func sweep(fsys fsx.FS, dir string) error {
	es, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		if fsx.IsTemp(e.Name()) && !e.IsDir() {
			if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// clearOld removes what the new configuration does not name any more.
func clearOld(fsys fsx.FS, dir string, c *config.Config, credential bool) error {
	es, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		var n int
		_, scan := fmt.Sscanf(e.Name(), trustName, &n)
		old := scan == nil && e.Name() == fmt.Sprintf(trustName, n) && e.Name() != c.Trust.File
		if old || credential && e.Name() == config.CredentialFile {
			if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return fsys.SyncDir(dir)
}

// writer puts files into a folder until one fails.
type writer struct {
	fsys fsx.FS
	dir  string
	err  error
}

// put writes a file that does not have that content yet.
func (w *writer) put(name string, b []byte) {
	if w.err != nil {
		return
	}
	path := filepath.Join(w.dir, name)
	if was, err := fsx.ReadFile(w.fsys, path, int64(len(b))); err == nil && bytes.Equal(was, b) {
		if info, err := w.fsys.Stat(path); err == nil && info.Mode().Perm()&0o077 == 0 {
			return
		}
	}
	w.err = fsx.WriteFileAtomic(w.fsys, path, b, 0o600)
}

func (w *writer) putJSON(name string, v any) {
	b, err := canonical(v)
	if err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	w.put(name, b)
}

// sync makes names durable that a run before wrote without hearing that they are.
func (w *writer) sync() {
	if w.err == nil {
		w.err = w.fsys.SyncDir(w.dir)
	}
}

func canonical(v any) ([]byte, error) { return artifact.Canonical(v) }

// checkGiven looks at the parts of a provisioning file that are copied, and reads the credentials that it names by path.
func checkGiven(p *config.Provisioning, path string) error {
	if p.Key != "" && !devicekey.IsURI(p.Key) {
		return diag.New(diag.Usage, "read %s: key %q is not the URI of a token; without it the device makes its key itself", path, p.Key)
	}
	if err := fleet.CheckLabels(withoutEmpty(p.Labels)); err != nil {
		return diag.Wrap(diag.Usage, err, "read %s", path)
	}
	for i := range p.Channels {
		name := p.Channels[i].Credential
		if name == "" {
			continue
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		cs, err := config.ReadCredentials(name)
		if err != nil {
			return err
		}
		var hosts []string
		all := fleet.Credentials{Credentials: p.Credentials}
		found := false
		for _, x := range p.Channels[i].Places() {
			if x.Registry == "" {
				continue
			}
			hosts = append(hosts, x.Registry)
			if c, ok := cs.For(x.Registry); ok {
				all.Merge([]fleet.Credential{c})
				found = true
			}
		}
		if !found {
			return diag.New(diag.Usage, "read %s: it has no credential for the registry of channel %s, %s", name, p.Channels[i].Name, strings.Join(hosts, ", "))
		}
		p.Channels[i].Credential, p.Credentials = "", all.Credentials
	}
	if err := fleet.CheckCredentials(p.Credentials); err != nil {
		return diag.Wrap(diag.Usage, err, "read %s", path)
	}
	return nil
}

func withoutEmpty(m map[string]string) map[string]string {
	out := maps.Clone(m)
	maps.DeleteFunc(out, func(_, v string) bool { return strings.TrimSpace(v) == "" })
	return out
}
