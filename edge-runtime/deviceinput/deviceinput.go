// Package deviceinput is the document that a device-local policy decides over: the state of one device, the model that is
// about to come to it, and the model that runs. schema.json fixes its form for authors and for the compiler of policies,
// Parse is the device's own reader of the same form.
//
// A reading that failed is {"known": false} and has no other member. No value stands in for it: a zero would satisfy
// "below 60 degrees" as well as an honest 20 does, while a reference to a member that is absent makes the rule that holds it
// undefined, whichever way it compares.
package deviceinput

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Schema is the value of Document.Schema.
const Schema = "waybill.dev/device-input/v1"

// Limits on a document.
const (
	MaxBytes  = 64 << 10
	MaxLabels = 64
	maxText   = 256
	maxNumber = 1<<53 - 1 // what every JSON reader keeps exactly
)

//go:embed schema.json
var schemaJSON []byte

// SchemaJSON is the JSON Schema (draft 2020-12) of a document.
func SchemaJSON() []byte { return slices.Clone(schemaJSON) }

// Action is what the policy is asked about.
type Action string

// Actions. Serving what passed here before is never asked about.
const (
	Download Action = "download" // the files of a model are about to be fetched; its evidence and manifest are here and verified
	Activate Action = "activate" // everything is here and verified; the model is about to be loaded, tried and served
)

// Document is the input of a policy. Members of a reading other than Known are there exactly when it is known.
type Document struct {
	Schema  string  `json:"schema"`
	Action  Action  `json:"action"`
	Time    Time    `json:"time"`
	Device  Device  `json:"device"`
	Model   Model   `json:"model"`
	Current Current `json:"current"`
}

// Time is when the question is asked. Unix never falls below the latest signed time that the device has seen.
type Time struct {
	Unix  int64 `json:"unix"`
	Local Local `json:"local"`
}

// Local is the device's wall clock in its own time zone; unknown when the clock is behind the latest signed time.
type Local struct {
	Known        bool    `json:"known"`
	MinutesOfDay *int64  `json:"minutesOfDay,omitempty"` // 0 to 1439
	Weekday      *string `json:"weekday,omitempty"`      // monday ... sunday
}

// Device is the state of the device.
type Device struct {
	Class       string            `json:"class"`
	Labels      map[string]string `json:"labels"`
	Memory      Memory            `json:"memory"`
	Storage     Storage           `json:"storage"`
	Battery     Battery           `json:"battery"`
	Power       Power             `json:"power"`
	Network     Network           `json:"network"`
	Metered     Metered           `json:"metered"`
	Temperature Temperature       `json:"temperature"`
}

// Memory is the device's main memory.
type Memory struct {
	Known      bool   `json:"known"`
	FreeBytes  *int64 `json:"freeBytes,omitempty"` // what a program could get without swapping
	TotalBytes *int64 `json:"totalBytes,omitempty"`
}

// Storage is the file system of the state directory.
type Storage struct {
	Known     bool   `json:"known"`
	FreeBytes *int64 `json:"freeBytes,omitempty"`
}

// Battery is the sum of the device's batteries. Percent and Charging are there when Present is true.
type Battery struct {
	Known    bool   `json:"known"`
	Present  *bool  `json:"present,omitempty"`
	Percent  *int64 `json:"percent,omitempty"` // 0 to 100, rounded down
	Charging *bool  `json:"charging,omitempty"`
}

// Power is where the device takes its power from now.
type Power struct {
	Known  bool    `json:"known"`
	Source *string `json:"source,omitempty"` // mains, battery
}

// Network tells whether there is a default route over an interface that is up.
type Network struct {
	Known     bool  `json:"known"`
	Connected *bool `json:"connected,omitempty"`
}

// Metered tells whether bytes over the default route cost money.
type Metered struct {
	Known bool  `json:"known"`
	Value *bool `json:"value,omitempty"`
}

// Temperature is that of the hottest thermal zone.
type Temperature struct {
	Known   bool   `json:"known"`
	Celsius *int64 `json:"celsius,omitempty"` // rounded up
}

// Model is the artifact that is about to come.
type Model struct {
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	Digest   artifact.Digest `json:"digest"` // of its manifest
	Epoch    int64           `json:"epoch"`
	Bytes    int64           `json:"bytes"`    // of all files that a device takes
	Download int64           `json:"download"` // of those that are not here yet
	Memory   Need            `json:"memory"`
}

// Need is how much linear memory the model asks for at most; unknown before its files are here.
type Need struct {
	Known bool   `json:"known"`
	Bytes *int64 `json:"bytes,omitempty"`
}

// Current is the artifact that is committed on the channel now; unknown when there is none.
type Current struct {
	Known   bool             `json:"known"`
	Name    *string          `json:"name,omitempty"`
	Version *string          `json:"version,omitempty"`
	Digest  *artifact.Digest `json:"digest,omitempty"`
	Epoch   *int64           `json:"epoch,omitempty"`
}

// Weekdays in the order of time.Weekday.
var weekdays = [...]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// LocalAt is the wall clock at t, in t's time zone.
func LocalAt(t time.Time) Local {
	minutes, day := int64(t.Hour()*60+t.Minute()), weekdays[t.Weekday()]
	return Local{Known: true, MinutesOfDay: &minutes, Weekday: &day}
}

// Parse reads a document strictly and validates it.
func Parse(raw []byte) (*Document, error) {
	if len(raw) > MaxBytes {
		return nil, fmt.Errorf("device input of %d bytes is larger than the limit of %d", len(raw), MaxBytes)
	}
	var d Document
	if err := strictjson.Decode(raw, &d); err != nil {
		return nil, fmt.Errorf("device input: %w", err)
	}
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("device input: %w", err)
	}
	return &d, nil
}

// Encode validates d and gives its canonical JSON. Labels that are nil are written as {}.
func (d *Document) Encode() ([]byte, error) {
	if d.Device.Labels == nil {
		c := *d
		c.Device.Labels = map[string]string{}
		d = &c
	}
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("device input: %w", err)
	}
	raw, err := artifact.Canonical(d)
	if err == nil && len(raw) > MaxBytes {
		err = fmt.Errorf("device input of %d bytes is larger than the limit of %d", len(raw), MaxBytes)
	}
	return raw, err
}

// Validate checks every rule of schema.json that the types do not hold by themselves.
func (d *Document) Validate() error {
	if d.Schema != Schema {
		return fmt.Errorf("schema is %.100q, this version reads %q", d.Schema, Schema)
	}
	if d.Action != Download && d.Action != Activate {
		return fmt.Errorf("action %.20q is neither %s nor %s", d.Action, Download, Activate)
	}
	if d.Device.Labels == nil {
		return errors.New("device.labels is missing")
	}
	if len(d.Device.Labels) > MaxLabels {
		return fmt.Errorf("device.labels has %d entries, the limit is %d", len(d.Device.Labels), MaxLabels)
	}
	c := checker{}
	c.number("time.unix", d.Time.Unix, 0, maxNumber)
	l := d.Time.Local
	c.reading("time.local", l.Known, l.MinutesOfDay != nil, l.Weekday != nil)
	c.optional("time.local.minutesOfDay", l.MinutesOfDay, 0, 1439)
	c.oneOf("time.local.weekday", l.Weekday, weekdays[:])
	c.device(&d.Device)
	c.text("model.name", d.Model.Name, false)
	c.text("model.version", d.Model.Version, true)
	c.digest("model.digest", d.Model.Digest)
	c.number("model.epoch", d.Model.Epoch, 0, maxNumber)
	c.number("model.bytes", d.Model.Bytes, 0, maxNumber)
	c.number("model.download", d.Model.Download, 0, maxNumber)
	c.reading("model.memory", d.Model.Memory.Known, d.Model.Memory.Bytes != nil)
	c.optional("model.memory.bytes", d.Model.Memory.Bytes, 0, maxNumber)
	x := d.Current
	c.reading("current", x.Known, x.Name != nil, x.Version != nil, x.Digest != nil, x.Epoch != nil)
	if x.Known && c.err == nil {
		c.text("current.name", *x.Name, false)
		c.text("current.version", *x.Version, true)
		c.digest("current.digest", *x.Digest)
		c.number("current.epoch", *x.Epoch, 0, maxNumber)
	}
	return c.err
}

// checker keeps the first thing that is wrong.
type checker struct{ err error }

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *checker) device(d *Device) {
	c.text("device.class", d.Class, false)
	for k, v := range d.Labels {
		c.text("a key of device.labels", k, false)
		c.text("a value of device.labels", v, true)
	}
	c.reading("device.memory", d.Memory.Known, d.Memory.FreeBytes != nil, d.Memory.TotalBytes != nil)
	c.optional("device.memory.freeBytes", d.Memory.FreeBytes, 0, maxNumber)
	c.optional("device.memory.totalBytes", d.Memory.TotalBytes, 0, maxNumber)
	c.reading("device.storage", d.Storage.Known, d.Storage.FreeBytes != nil)
	c.optional("device.storage.freeBytes", d.Storage.FreeBytes, 0, maxNumber)
	b := d.Battery
	c.reading("device.battery", b.Known, b.Present != nil)
	present := b.Present != nil && *b.Present
	if (b.Percent != nil) != present || (b.Charging != nil) != present {
		c.fail("device.battery: percent and charging belong to a battery that is present, and to no other")
	}
	c.optional("device.battery.percent", b.Percent, 0, 100)
	c.reading("device.power", d.Power.Known, d.Power.Source != nil)
	c.oneOf("device.power.source", d.Power.Source, []string{"mains", "battery"})
	c.reading("device.network", d.Network.Known, d.Network.Connected != nil)
	c.reading("device.metered", d.Metered.Known, d.Metered.Value != nil)
	c.reading("device.temperature", d.Temperature.Known, d.Temperature.Celsius != nil)
	c.optional("device.temperature.celsius", d.Temperature.Celsius, -273, 10000)
}

// reading checks that the members of a reading are there when it is known, and only then.
func (c *checker) reading(path string, known bool, members ...bool) {
	for _, there := range members {
		if there != known {
			if known {
				c.fail("%s is known and lacks a member", path)
			} else {
				c.fail("%s is not known and has another member", path)
			}
		}
	}
}

func (c *checker) number(path string, v, low, high int64) {
	if v < low || v > high {
		c.fail("%s: %d is not between %d and %d", path, v, low, high)
	}
}

func (c *checker) optional(path string, v *int64, low, high int64) {
	if v != nil {
		c.number(path, *v, low, high)
	}
}

func (c *checker) oneOf(path string, v *string, of []string) {
	if v != nil && !slices.Contains(of, *v) {
		c.fail("%s: %.20q is none of %s", path, *v, strings.Join(of, ", "))
	}
}

func (c *checker) text(path, s string, empty bool) {
	if s == "" && !empty {
		c.fail("%s is empty", path)
	}
	if utf8.RuneCountInString(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		c.fail("%s: longer than %d characters, or with a control character", path, maxText)
	}
}

func (c *checker) digest(path string, d artifact.Digest) {
	if _, err := artifact.ParseDigest(string(d)); err != nil {
		c.fail("%s: %w", path, err)
	}
}
