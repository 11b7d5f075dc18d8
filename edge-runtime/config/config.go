// Package config is what is written for a device: its configuration, the operator's provisioning file, and the secrets that
// they name. It reads them strictly, checks them, and makes of them what the parts of the runtime take.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/owner"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/fleet"
)

// Schemas of the files that enroll and run read and write.
const (
	Schema             = "waybill.dev/edge-config/v1"
	SchemaProvisioning = "waybill.dev/edge-provisioning/v1"
)

const MaxSize = 4 << 20

// Config is what `run` needs. Paths are relative to the file.
type Config struct {
	Schema   string            `json:"schema,omitempty"`
	State    string            `json:"state"`
	Key      string            `json:"key"` // a file, or pkcs11:...
	Listen   string            `json:"listen"`
	Control  string            `json:"control,omitempty"`
	Trust    Trust             `json:"trust"`
	Class    string            `json:"class"`
	Labels   map[string]string `json:"labels"`
	Channels []Channel         `json:"channels"`
	Engine   Engine            `json:"engine,omitzero"`
	// DevicePolicy is the file of the device's own policy (waybill policy pack --device); "": a model that was admitted is
	// taken at once. Sensors tell where its readings come from.
	DevicePolicy string    `json:"device_policy,omitempty"`
	Sensors      Sensors   `json:"sensors,omitzero"`
	Log          logConfig `json:"log,omitzero"`
	// Reports say who gets the signed status; absent: the registry. [] keeps it on the device.
	Reports []Report `json:"reports,omitzero"`
	Serve   Serve    `json:"serve,omitzero"`
	Reserve byteSize `json:"reserve,omitzero"` // bytes of the disk that downloads leave free
	Carry
}

// Sensors tells where the readings for the device's policy come from.
type Sensors struct {
	Root    string   `json:"root,omitempty"`   // that holds proc and sys; default /
	Metered []string `json:"metered,omitzero"` // patterns of interfaces whose bytes cost money; [] says that none does, without it nobody knows
}

type Trust struct {
	File    string          `json:"file"`
	Version int             `json:"version"`
	Digest  artifact.Digest `json:"digest"`
}

type Channel struct {
	Name        string   `json:"name"`
	Env         string   `json:"env"`
	Registry    string   `json:"registry,omitempty"` // with the keys below the short form of one carrier
	Repo        string   `json:"repo,omitempty"`
	PlainHTTP   bool     `json:"plain_http,omitempty"`  // allow http to hosts other than this machine
	CAFile      string   `json:"ca_file,omitempty"`     // PEM: authorities that are believed too
	ClientCert  string   `json:"client_cert,omitempty"` // PEM: shown to the registry
	ClientKey   string   `json:"client_key,omitempty"`  // PEM; "" with ClientCert: in the same file
	Model       string   `json:"model"`
	ResourceURI string   `json:"resource_uri"`
	Interval    Duration `json:"interval"`
	Trial       Trial    `json:"trial"`
	NoReports   bool     `json:"no_reports,omitempty"` // keep status reports on the device
	Credential  string   `json:"credential,omitempty"` // file of registry credentials, mode 0600; "": none

	Shadow  *Shadow  `json:"shadow,omitempty"`
	Factory *Factory `json:"factory,omitempty"`
	// Carriers are where the channel comes from, in the order of preference.
	Carriers []Carrier `json:"carriers,omitempty"`
	Carry
}

type Trial struct {
	Duration     Duration `json:"duration"`
	MinRequests  int64    `json:"min_requests"`
	MaxErrorRate float64  `json:"max_error_rate"`
	P50          Duration `json:"p50"`
	P99          Duration `json:"p99"`
	Memory       byteSize `json:"memory,omitzero"`
}

// Duration is a time.Duration written as "1m30s".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	switch {
	case err != nil:
		err = diag.Errorf("%q is no length of time such as \"90s\", \"5m\" or \"1h30m\"", b)
	case v < 0:
		err = diag.Errorf("the length of time %q is negative", b)
	}
	*d = Duration(v)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Provisioning is what the operator gives to a device: whom to trust and what to follow.
type Provisioning struct {
	Schema   string            `json:"schema"`
	Trust    ProvisionedTrust  `json:"trust"`
	Class    string            `json:"class,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Listen   string            `json:"listen,omitempty"`
	Channels []Channel         `json:"channels"`
	// DevicePolicy is a file, relative to this one; enroll copies it to the device's folder.
	DevicePolicy string  `json:"device_policy,omitempty"`
	Sensors      Sensors `json:"sensors,omitzero"`
	// Device, when it is given, is the one that this file is for.
	Device string `json:"device,omitempty"`
	// Key is the URI of a device key on a token; "": a file made on the device.
	Key string `json:"key,omitempty"`
	// Credentials go to a file of their own; absent: those that the device has stay, []: they are removed.
	Credentials []fleet.Credential `json:"credentials,omitzero"`
	Reports     []Report           `json:"reports,omitzero"`
	Reserve     byteSize           `json:"reserve,omitzero"`
	Carry
}

// ProvisionedTrust holds the signed trust document itself or names its file, relative to the provisioning file.
type ProvisionedTrust struct {
	File    string          `json:"file,omitempty"`
	Bundle  artifact.Base64 `json:"bundle,omitempty"`
	Version int             `json:"version"`
	Digest  artifact.Digest `json:"digest"`
}

// Decode reads JSON strictly into v: an unknown key is an error with the nearest known one.
func Decode(path string, raw []byte, v any) error {
	fail := func(err error) *diag.Error {
		e := diag.Wrap(diag.Usage, err, "read %s", path)
		var syn *json.SyntaxError
		if errors.As(err, &syn) {
			before := raw[:min(int64(len(raw)), syn.Offset)]
			e.At(diag.Loc{File: path, Line: bytes.Count(before, []byte("\n")) + 1, Col: len(before) - bytes.LastIndexByte(before, '\n')})
		}
		return e
	}
	if err := strictjson.Check(raw); err != nil {
		var probe any
		if jerr := json.Unmarshal(raw, &probe); jerr != nil {
			return fail(jerr)
		}
		return fail(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		return nil
	}
	e := fail(err)
	if _, quoted, ok := strings.Cut(err.Error(), "unknown field "); ok {
		key := strings.Trim(quoted, `"`)
		if at := bytes.Index(raw, []byte(quoted)); at >= 0 {
			e.At(diag.Loc{File: path, Line: bytes.Count(raw[:at], []byte("\n")) + 1})
		}
		if near := diag.Nearest(key, knownKeys()); near != "" {
			e.Hint("did you mean %q?", near)
		}
	}
	return e
}

// knownKeys are the JSON names of everything that a configuration or a provisioning file may hold.
func knownKeys() []string {
	names := map[string]bool{}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return
		}
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous {
				walk(f.Type)
			}
			if name != "" && name != "-" {
				names[name] = true
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	walk(reflect.TypeFor[Provisioning]())
	return slices.Sorted(maps.Keys(names))
}

func ReadFile(path string, max int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > max {
		return nil, diag.New(diag.Usage, "read %s: %d bytes, the limit is %d", path, info.Size(), max)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, diag.Wrap(diag.NotFound, fs.ErrNotExist, "read %s", path)
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read %s", path)
	}
	return b, nil
}

// Load reads and checks a configuration, making its paths absolute.
func Load(file string) (*Config, error) {
	raw, err := ReadFile(file, MaxSize)
	if err != nil {
		var e *diag.Error
		if errors.As(err, &e) && e.Code == diag.NotFound {
			e.Hint("waybill-edge enroll --out %s --class CLASS --provision provisioning.json", filepath.Dir(file))
		}
		if who := owner.Name(file); e != nil && who != "" && errors.Is(err, fs.ErrPermission) {
			e.Line("the device belongs to user %s", who)
			e.Hint("sudo -u %s waybill-edge status --config %s", who, file)
		}
		return nil, err
	}
	c := &Config{}
	if err := Decode(file, raw, c); err != nil {
		return nil, err
	}
	if err := c.Check(); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "read %s", file)
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read %s", file)
	}
	paths := []*string{&c.State, &c.Control, &c.Trust.File, &c.DevicePolicy, &c.Sensors.Root}
	for i := range c.Channels {
		ch := &c.Channels[i]
		paths = append(paths, &ch.CAFile, &ch.ClientCert, &ch.ClientKey, &ch.Credential)
		if ch.Factory != nil {
			paths = append(paths, &ch.Factory.Source)
		}
		ch.relative(filepath.Dir(abs))
	}
	if !devicekey.IsURI(c.Key) {
		paths = append(paths, &c.Key)
	}
	for i := range c.Reports {
		paths = append(paths, c.Reports[i].paths()...)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(abs), *p)
		}
	}
	if c.Control == "" {
		if c.Control, err = controlPath(c.State); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Config) Check() error {
	if c.Schema != "" && c.Schema != Schema {
		return diag.Errorf("schema is %q, this version reads %q", c.Schema, Schema)
	}
	for name, v := range map[string]string{"state": c.State, "listen": c.Listen, "class": c.Class, "trust.file": c.Trust.File} {
		if v == "" {
			return diag.Errorf("%s is missing", name)
		}
	}
	if c.Key == "" {
		c.Key = "device.key"
	}
	if _, err := artifact.ParseDigest(string(c.Trust.Digest)); err != nil {
		return diag.Errorf("trust.digest: %w", err)
	}
	if c.Trust.Version < 1 {
		return errors.New("trust.version is missing")
	}
	for _, m := range c.Sensors.Metered {
		if _, err := path.Match(m, ""); err != nil {
			return diag.Errorf("sensors.metered: %q: %w", m, err)
		}
	}
	if err := errors.Join(c.Log.check(), c.Carry.check()); err != nil {
		return err
	}
	if err := CheckReports(c.Reports); err != nil {
		return err
	}
	if err := checkAddr("listen", c.Listen); err != nil {
		return err
	}
	if err := c.Serve.check(); err != nil {
		return err
	}
	if err := c.Engine.check(); err != nil {
		return err
	}
	return checkChannels(c.Channels)
}

func checkChannels(cs []Channel) error {
	if len(cs) == 0 {
		return errors.New("channels: none is given")
	}
	for i := range cs {
		c := &cs[i]
		at := fmt.Sprintf("channels[%d]", i)
		if err := channel.ValidName(c.Name); err != nil {
			return diag.Errorf("%s.name: %w", at, err)
		}
		for j, d := range cs[:i] {
			if d.Name == c.Name || d.Model == c.Model && c.Model != "" {
				return diag.Errorf("%s has the name %q or the model %q of channels[%d]: each channel has its own", at, c.Name, c.Model, j)
			}
		}
		for _, f := range []struct{ name, v string }{{"env", c.Env}, {"model", c.Model}, {"resource_uri", c.ResourceURI}} {
			if f.v == "" {
				return diag.Errorf("%s.%s is missing", at, f.name)
			}
		}
		if err := errors.Join(c.checkCarriers(), c.Carry.check()); err != nil {
			return diag.Errorf("%s.%w", at, err)
		}
		if c.Interval == 0 {
			c.Interval = Duration(5 * time.Minute)
		}
		if c.Trial.Duration == 0 {
			c.Trial.Duration = Duration(time.Minute)
		}
		if r := c.Trial.MaxErrorRate; r < 0 || r > 1 {
			return diag.Errorf("%s.trial.max_error_rate: %v is not between 0 and 1", at, r)
		}
		if err := c.Shadow.check(); err != nil {
			return diag.Errorf("%s.shadow: %w", at, err)
		}
		if err := c.Factory.check(); err != nil {
			return diag.Errorf("%s.factory: %w", at, err)
		}
		if c.Trial.MinRequests < 0 {
			return diag.Errorf("%s.trial.min_requests is negative", at)
		}
	}
	return nil
}

func JournalPath(cfg *Config) string { return filepath.Join(cfg.State, "journal.log") }
