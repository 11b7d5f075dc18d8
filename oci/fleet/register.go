package fleet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/trust"
)

// Device is a line of the register: whose word counts, and under which class and labels it was enrolled.
type Device struct {
	ID     string            `json:"device"`
	Public string            `json:"public"` // PEM
	Class  string            `json:"class"`
	Labels map[string]string `json:"labels"`
}

// Register is every device that was enrolled, by id. It tells genuine reports from those of strangers.
type Register map[string]Device

// MaxRegister bounds a register in bytes: a million devices.
const MaxRegister = 1 << 30

// ParseRegister reads one device a line. A damaged or doubled line is an error with its number: a register with holes
// would turn devices into strangers.
func ParseRegister(raw []byte) (Register, error) {
	r := Register{}
	err := lines(raw, MaxRequest, func(n int, line []byte) error {
		var d Device
		if err := strictjson.Decode(line, &d); err != nil {
			return err
		}
		if err := d.check(); err != nil {
			return err
		}
		if _, twice := r[d.ID]; twice {
			return diag.Errorf("device %.12s is there twice", d.ID)
		}
		r[d.ID] = d
		return nil
	})
	return r, err
}

func (d Device) check() error {
	_, id, err := trust.ParsePublic([]byte(d.Public))
	switch {
	case err != nil:
		return diag.Errorf("public key: %w", err)
	case id != d.ID:
		return diag.Errorf("the id %.12q is not that of the public key, %s", d.ID, id[:12])
	}
	if err := CheckClass(d.Class); err != nil {
		return err
	}
	return CheckLabels(d.Labels)
}

// Encode writes the register, ordered by id: equal registers give equal bytes.
func (r Register) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, id := range slices.Sorted(maps.Keys(r)) {
		if err := e.Encode(r[id]); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// lines calls do for each line that is not blank, counting from 1.
func lines(raw []byte, max int, do func(n int, line []byte) error) error {
	s := bufio.NewScanner(bytes.NewReader(raw))
	s.Buffer(make([]byte, 0, 64<<10), max)
	n := 0
	for s.Scan() {
		n++
		if line := bytes.TrimSpace(s.Bytes()); len(line) > 0 {
			if err := do(n, line); err != nil {
				return diag.Errorf("line %d: %w", n, err)
			}
		}
	}
	if err := s.Err(); err != nil {
		return diag.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

// StatusTag is the tag under which a registry sink keeps the newest report of a device in a channel. The list of what is
// attached to a model stays free of it: a fleet would fill it.
func StatusTag(channel, device string) string {
	return StatusTagPrefix + device[:min(32, len(device))] + "-" + channel
}

// StatusTagPrefix begins every such tag.
const StatusTagPrefix = "status-"

// IsStatusTag tells whether tag holds a report of the channel.
func IsStatusTag(tag, channel string) bool {
	rest, ok := strings.CutPrefix(tag, StatusTagPrefix)
	return ok && len(rest) > 33 && rest[32] == '-' && rest[33:] == channel
}

// StatusManifest is the manifest of a report, which has no subject.
func StatusManifest(bundle artifact.Descriptor, predicateType string) ([]byte, error) {
	return json.Marshal(artifact.Manifest{
		SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: artifact.MediaTypeBundle,
		Config: artifact.Descriptor{MediaType: artifact.MediaTypeEmpty, Digest: artifact.EmptyDigest, Size: 2}, Layers: []artifact.Descriptor{bundle},
		Annotations: map[string]string{artifact.AnnotationBundlePredicate: predicateType},
	})
}
