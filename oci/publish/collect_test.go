package publish_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/registry/servertest"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// The garbage collection of CNCF's registry, told to remove what has no tag, leaves everything that the channel names: targets
// that were pushed by digest, what they are made of, the evidence attached to them, records and their evidence. Without the keep
// tags the targets are gone.
func TestGarbageCollection(t *testing.T) {
	program, err := exec.LookPath("registry")
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal("registry is not installed")
		}
		t.Skip("registry (CNCF distribution) is not installed")
	}
	for _, hold := range []bool{true, false} {
		t.Run(fmt.Sprintf("hold %v", hold), func(t *testing.T) {
			s := servertest.Start(t, servertest.Options{Kind: servertest.Distribution})
			ref, err := registry.ParseRef(s.Host + "/ml/churn")
			if err != nil {
				t.Fatal(err)
			}
			p, err := registry.Open(t.Context(), ref, registry.Options{})
			if err != nil {
				t.Fatal(err)
			}
			w := verifytest.New(t)
			ctx := t.Context()
			var models, files, attached []artifact.Descriptor
			for i := range 3 {
				file, err := registry.PushBytes(ctx, p, "application/octet-stream", fmt.Appendf(nil, "module %d", i))
				if err != nil {
					t.Fatal(err)
				}
				empty, err := registry.PushBytes(ctx, p, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig))
				if err != nil {
					t.Fatal(err)
				}
				raw, err := json.Marshal(artifact.Manifest{
					SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: "application/x-model", Config: empty, Layers: []artifact.Descriptor{file},
				})
				if err != nil {
					t.Fatal(err)
				}
				model, err := p.PushManifest(ctx, raw, artifact.MediaTypeManifest, "")
				if err != nil {
					t.Fatal(err)
				}
				release := w.Release("churn", model.Digest)
				if _, err := p.Attach(ctx, model, release, evidence.TypeRelease); err != nil {
					t.Fatal(err)
				}
				models, files = append(models, model), append(files, file)
				attached = append(attached, artifact.Descriptor{MediaType: artifact.MediaTypeBundle, Digest: artifact.DigestOf(release), Size: int64(len(release))})

				st, err := publish.Read(ctx, p, "prod", w.Doc, w.Now)
				if err != nil {
					t.Fatal(err)
				}
				target := verifytest.Target(fmt.Sprint(i), model.Digest)
				rec, err := channel.Next(st.Prev(), w.Change(target))
				if err != nil {
					t.Fatal(err)
				}
				if hold {
					if missing, err := publish.Hold(ctx, p, rec); err != nil || len(missing) > 0 {
						t.Fatal(missing, err)
					}
				}
				ev := [][]byte{release, w.SignVSA(model.Digest, w.VSA())}
				if _, err := publish.Write(ctx, p, st, rec, ev, signer{t, w.Keys[trust.RoleDeployer]}, w.Doc, w.Now); err != nil {
					t.Fatal(err)
				}
			}
			config := filepath.Join(t.TempDir(), "gc.yml")
			if err := os.WriteFile(config, fmt.Appendf(nil, "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\n", s.Root), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(ctx, program, "garbage-collect", "--delete-untagged", config).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for i, m := range models {
				_, _, err := p.Manifest(ctx, m.Digest)
				if !hold {
					if !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("target %d is still there without its tag: %v", i, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("target %d: %v", i, err)
				}
				for _, d := range []artifact.Descriptor{files[i], attached[i]} {
					if r, err := p.Blob(ctx, d); err != nil {
						t.Errorf("target %d: %v", i, err)
					} else if _, err := io.Copy(io.Discard, r); err != nil {
						t.Errorf("target %d: %v", i, err)
					}
				}
				if refs, err := p.Referrers(ctx, m.Digest); err != nil || len(refs) != 1 {
					t.Errorf("evidence of target %d: %d, %v", i, len(refs), err)
				}
			}
			st, err := publish.Read(ctx, p, "prod", w.Doc, w.Now)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := publish.Survey(ctx, p, st, w.Doc, w.Now, 0)
			if err != nil || len(lines) != 3 || len(publish.Faults(lines)) > 0 {
				t.Errorf("%d records, %v, %v", len(lines), publish.Faults(lines), err)
			}
			if ev, err := publish.Evidence(ctx, p, st.Head.Record); err != nil || len(ev) != 2 {
				t.Errorf("evidence of the record: %d, %v", len(ev), err)
			}
		})
	}
}
