package artifact

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
)

// EmptyConfig is the content of the OCI empty descriptor, and EmptyDigest its digest.
const (
	EmptyConfig = "{}"
	EmptyDigest = Digest("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
)

// Targets of a module layer.
const (
	TargetAny = "any"
	TargetWeb = "web"
)

// Values of AnnotationPersonal.
const (
	PersonalNone = "none"
	PersonalYes  = "yes"
)

// Layer is one file of a model artifact, as the manifest tells it.
type Layer struct {
	Role     Role
	Path     string // slash-separated, relative, unique in the artifact
	Digest   Digest
	Size     int64
	Target   string // of a module: TargetAny or TargetWeb; else ""
	Personal string // PersonalNone, PersonalYes or "" (undeclared); only on golden, baseline and source
}

// Descriptor returns the layer as it stands in a manifest: media type by role, both file name annotations, and file
// metadata with a constant mode, owner and time, so that equal files give equal manifests.
func (l Layer) Descriptor() Descriptor {
	a := map[string]string{
		AnnotationTitle:    l.Path,
		AnnotationFilepath: l.Path,
		AnnotationMetadata: fmt.Sprintf(
			`{"name":%s,"mode":420,"uid":0,"gid":0,"size":%d,"mtime":"1970-01-01T00:00:00Z","typeflag":48}`,
			quoteJSON(path.Base(l.Path)), l.Size),
		AnnotationRole: string(l.Role),
	}
	if l.Target != "" {
		a[AnnotationTarget] = l.Target
	}
	if l.Personal != "" {
		a[AnnotationPersonal] = l.Personal
	}
	info, _ := roleInfo(l.Role) // an unknown role is refused by checkLayers
	return Descriptor{MediaType: info.MediaType, Digest: l.Digest, Size: l.Size, Annotations: a}
}

func quoteJSON(s string) string {
	b, _ := json.Marshal(s) // a string always encodes
	return string(b)
}

// Model is a parsed and checked model manifest. Layers are in manifest order, which is that of their paths.
type Model struct {
	Manifest Manifest
	Layers   []Layer
}

// ByRole returns the layers of a role, in order.
func (m *Model) ByRole(r Role) []Layer {
	var out []Layer
	for _, l := range m.Layers {
		if l.Role == r {
			out = append(out, l)
		}
	}
	return out
}

// One returns the only layer of a role; it fails when there is none or several.
func (m *Model) One(r Role) (Layer, error) {
	ls := m.ByRole(r)
	if len(ls) != 1 {
		return Layer{}, diag.Errorf("the artifact has %d layers of role %s, want 1", len(ls), r)
	}
	return ls[0], nil
}

// Module returns the module layer of a target.
func (m *Model) Module(target string) (Layer, error) {
	for _, l := range m.ByRole(RoleModule) {
		if l.Target == target {
			return l, nil
		}
	}
	return Layer{}, diag.Errorf("the artifact has no module for target %q", target)
}

// OnDevice returns the layers that a device pulls, in order.
func (m *Model) OnDevice() []Layer {
	var out []Layer
	for _, l := range m.Layers {
		if info, ok := roleInfo(l.Role); ok && info.OnDevice {
			out = append(out, l)
		}
	}
	return out
}

// BuildModel makes the manifest and the config blob of a model artifact from its layers, in any order. Equal arguments
// give equal bytes. Annotations go on the manifest and may be nil.
func BuildModel(cfg Config, layers []Layer, annotations map[string]string) (manifest, config []byte, err error) {
	ls := slices.Clone(layers)
	sort.Slice(ls, func(i, j int) bool { return ls[i].Path < ls[j].Path })
	if err := checkLayers(ls); err != nil {
		return nil, nil, err
	}
	cfg.ModelFS = ModelFS{Type: "layers"}
	ds := make([]Descriptor, len(ls))
	for i, l := range ls {
		ds[i] = l.Descriptor()
		cfg.ModelFS.DiffIDs = append(cfg.ModelFS.DiffIDs, l.Digest) // raw layers: the content is the layer
	}
	if err := cfg.check(); err != nil {
		return nil, nil, err
	}
	if config, err = marshal(cfg); err != nil {
		return nil, nil, err
	}
	manifest, err = marshal(Manifest{
		SchemaVersion: 2,
		MediaType:     MediaTypeManifest,
		ArtifactType:  ArtifactType,
		Config:        Descriptor{MediaType: MediaTypeConfig, Digest: DigestOf(config), Size: int64(len(config))},
		Layers:        ds,
		Annotations:   annotations,
	})
	if err == nil && len(manifest) > MaxManifest {
		err = diag.Errorf("the manifest has %d bytes, more than %d", len(manifest), MaxManifest)
	}
	return manifest, config, err
}

// marshal writes compact JSON without HTML escaping; map keys come out sorted.
func marshal(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}

// ParseManifest reads an OCI image manifest of any artifact type and checks what every user relies on: schema version,
// media type, sha256 digests, sizes that are not negative, at most MaxLayers layers. Unknown members are allowed, as
// OCI demands; a member given twice under two spellings is refused, since parsers disagree about which one counts.
func ParseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if len(b) > MaxManifest {
		return m, diag.Errorf("manifest of %d bytes is larger than %d", len(b), MaxManifest)
	}
	if err := strictKeys(b); err != nil {
		return m, diag.Errorf("manifest: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, diag.Errorf("manifest is not valid JSON: %w", err)
	}
	if m.SchemaVersion != 2 {
		return m, diag.Errorf("manifest has schemaVersion %d, want 2", m.SchemaVersion)
	}
	if m.MediaType != MediaTypeManifest {
		return m, diag.Errorf("manifest has media type %q, want %q", m.MediaType, MediaTypeManifest)
	}
	if len(m.Layers) > MaxLayers {
		return m, diag.Errorf("manifest has %d layers, more than %d", len(m.Layers), MaxLayers)
	}
	if err := checkDescriptor(m.Config); err != nil {
		return m, diag.Errorf("manifest config: %w", err)
	}
	for i, l := range m.Layers {
		if err := checkDescriptor(l); err != nil {
			return m, diag.Errorf("manifest layer %d: %w", i, err)
		}
	}
	if m.Subject != nil {
		if err := checkDescriptor(*m.Subject); err != nil {
			return m, diag.Errorf("manifest subject: %w", err)
		}
	}
	return m, nil
}

// ParseIndex reads an OCI image index with the same checks.
func ParseIndex(b []byte) (Index, error) {
	var x Index
	if len(b) > MaxManifest {
		return x, diag.Errorf("index of %d bytes is larger than %d", len(b), MaxManifest)
	}
	if err := strictKeys(b); err != nil {
		return x, diag.Errorf("index: %w", err)
	}
	if err := json.Unmarshal(b, &x); err != nil {
		return x, diag.Errorf("index is not valid JSON: %w", err)
	}
	if x.SchemaVersion != 2 {
		return x, diag.Errorf("index has schemaVersion %d, want 2", x.SchemaVersion)
	}
	if x.MediaType != "" && x.MediaType != MediaTypeIndex {
		return x, diag.Errorf("index has media type %q, want %q", x.MediaType, MediaTypeIndex)
	}
	for i, d := range x.Manifests {
		if err := checkDescriptor(d); err != nil {
			return x, diag.Errorf("index entry %d: %w", i, err)
		}
	}
	return x, nil
}

func checkDescriptor(d Descriptor) error {
	if _, err := ParseDigest(string(d.Digest)); err != nil {
		return err
	}
	if d.Size < 0 {
		return diag.Errorf("descriptor of %s has the negative size %d", d.Digest, d.Size)
	}
	if d.MediaType == "" {
		return diag.Errorf("descriptor of %s has no media type", d.Digest)
	}
	return nil
}

// ParseModel reads a model manifest strictly: artifact and config type of ModelPack, no subject, each layer with a known
// role and the media type of that role, its path in both annotations, layers sorted by path, counts as in Roles.
func ParseModel(b []byte) (*Model, error) {
	m, err := ParseManifest(b)
	if err != nil {
		return nil, err
	}
	if m.ArtifactType != ArtifactType {
		return nil, diag.Errorf("not a model artifact: artifactType is %q, want %q", m.ArtifactType, ArtifactType)
	}
	if m.Config.MediaType != MediaTypeConfig {
		return nil, diag.Errorf("not a model artifact: config has media type %q, want %q", m.Config.MediaType, MediaTypeConfig)
	}
	if m.Config.Size > MaxConfig {
		return nil, diag.Errorf("config has %d bytes, more than %d", m.Config.Size, MaxConfig)
	}
	if m.Subject != nil {
		return nil, errors.New("a model artifact has no subject")
	}
	out := &Model{Manifest: m}
	for i, d := range m.Layers {
		l := Layer{
			Role: Role(d.Annotations[AnnotationRole]), Path: d.Annotations[AnnotationTitle], Digest: d.Digest, Size: d.Size,
			Target: d.Annotations[AnnotationTarget], Personal: d.Annotations[AnnotationPersonal],
		}
		info, ok := roleInfo(l.Role)
		if !ok {
			return nil, diag.Errorf("layer %d (%s): unknown role %q", i, l.Path, l.Role)
		}
		if d.MediaType != info.MediaType {
			return nil, diag.Errorf("layer %s: role %s has media type %q, want %q", l.Path, l.Role, d.MediaType, info.MediaType)
		}
		if fp := d.Annotations[AnnotationFilepath]; fp != l.Path {
			return nil, diag.Errorf("layer %d: %s is %q but %s is %q", i, AnnotationTitle, l.Path, AnnotationFilepath, fp)
		}
		out.Layers = append(out.Layers, l)
	}
	if err := checkLayers(out.Layers); err != nil {
		return nil, err
	}
	return out, nil
}

// checkLayers applies the role table to layers that must already be sorted.
func checkLayers(ls []Layer) error {
	if len(ls) > MaxLayers {
		return diag.Errorf("%d layers, more than %d", len(ls), MaxLayers)
	}
	count := map[string]int{}
	folded := map[string]string{}
	for i, l := range ls {
		info, ok := roleInfo(l.Role)
		if !ok {
			return diag.Errorf("layer %s: unknown role %q", l.Path, l.Role)
		}
		if err := CheckPath(l.Path); err != nil {
			return err
		}
		if i > 0 && ls[i-1].Path >= l.Path {
			return diag.Errorf("layers are not sorted by unique path: %q comes before %q", ls[i-1].Path, l.Path)
		}
		// macOS and Windows would unpack the second over the first.
		if was, dup := folded[strings.ToLower(l.Path)]; dup {
			return diag.Errorf("paths %q and %q differ in case only", was, l.Path)
		}
		folded[strings.ToLower(l.Path)] = l.Path
		if _, err := ParseDigest(string(l.Digest)); err != nil {
			return diag.Errorf("layer %s: %w", l.Path, err)
		}
		if l.Size < 0 {
			return diag.Errorf("layer %s has the negative size %d", l.Path, l.Size)
		}
		key := string(l.Role)
		if l.Role == RoleModule {
			if l.Target != TargetAny && l.Target != TargetWeb {
				return diag.Errorf("layer %s: module for unknown target %q", l.Path, l.Target)
			}
			key += " for target " + l.Target
		} else if l.Target != "" {
			return diag.Errorf("layer %s: role %s has no target", l.Path, l.Role)
		}
		switch l.Role {
		case RoleGolden, RoleBaseline, RoleSource:
			if l.Personal != "" && l.Personal != PersonalNone && l.Personal != PersonalYes {
				return diag.Errorf("layer %s: %s is %q, want %q or %q", l.Path, AnnotationPersonal, l.Personal, PersonalNone, PersonalYes)
			}
		default:
			if l.Personal != "" {
				return diag.Errorf("layer %s: role %s does not declare personal data", l.Path, l.Role)
			}
		}
		if count[key]++; info.Max > 0 && count[key] > info.Max {
			return diag.Errorf("layer %s: more than %d layer of role %s", l.Path, info.Max, key)
		}
		switch {
		case l.Role == RoleInterface && l.Size > MaxInterface:
			return diag.Errorf("interface document has %d bytes, more than %d", l.Size, MaxInterface)
		case l.Role == RoleGolden && l.Size > MaxGolden:
			return diag.Errorf("golden vectors have %d bytes, more than %d", l.Size, MaxGolden)
		}
	}
	for _, info := range Roles() {
		if info.Required && !slices.ContainsFunc(ls, func(l Layer) bool { return l.Role == info.Role }) {
			return diag.Errorf("no layer of role %s", info.Role)
		}
	}
	return checkBundled(ls)
}

// CheckPath checks that p names a file below a directory on every platform: relative, slash-separated, no dot
// segments, no backslash, colon or control character, no name that Windows reserves.
func CheckPath(p string) error {
	if !fs.ValidPath(p) || p == "." || len(p) > 512 {
		return diag.Errorf("%q is not a relative, slash-separated file path", p)
	}
	for _, r := range p {
		if r < 0x20 || r == 0x7f || strings.ContainsRune(`\:*?"<>|`, r) {
			return diag.Errorf("path %q has the character %q, which some systems forbid", p, r)
		}
	}
	for seg := range strings.SplitSeq(p, "/") {
		if strings.HasSuffix(seg, ".") || strings.HasSuffix(seg, " ") {
			return diag.Errorf("path %q has a part that ends in a dot or a space", p)
		}
		stem, _, _ := strings.Cut(strings.ToLower(seg), ".")
		switch stem {
		case "con", "prn", "aux", "nul":
			return diag.Errorf("path %q uses a name that Windows reserves", p)
		}
		if len(stem) == 4 && (strings.HasPrefix(stem, "com") || strings.HasPrefix(stem, "lpt")) && stem[3] >= '1' && stem[3] <= '9' {
			return diag.Errorf("path %q uses a name that Windows reserves", p)
		}
	}
	return nil
}

func roleInfo(r Role) (RoleInfo, bool) {
	for _, i := range Roles() {
		if i.Role == r {
			return i, true
		}
	}
	return RoleInfo{}, false
}
