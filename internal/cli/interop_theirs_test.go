package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/evidence"
)

const (
	cosignV2Upload = " --new-bundle-format --tlog-upload=false --allow-insecure-registry -y "
	cosignV3Upload = " --use-signing-config=false --tlog-upload=false --allow-insecure-registry -y "
	cosignRelease  = "https://sigstore.dev/cosign/sign/v1"
)

// theirsOnRegistry is what others write into a registry and we read, tried against every registry; and keys of the other kind.
func theirsOnRegistry() []interop {
	rows := []interop{
		{tool: "oras", what: "copy our layout with evidence into the registry; verified there", line: "cp -r --from-oci-layout LAY:1.0.0 --to-plain-http NEW", then: "verify NEW"},
		{tool: "oras", what: "restore our saved file into the registry; verified there", line: "restore --plain-http --input FILE REPO-restored:1.0.0", then: "verify REPO-restored:1.0.0"},
		{tool: "oras", what: "back up with evidence into a file; loaded and verified here", line: "backup --plain-http --include-referrers --output OUT.tar REF",
			then: "load OUT.tar --trust trust.signed --require-evidence --name backed-up:1; verify backed-up:1; store rm backed-up:1"},
	}
	for _, c := range []struct{ tool, upload, format string }{{"cosign", cosignV2Upload, " --new-bundle-format"}, {"cosign-v3", cosignV3Upload, ""}} {
		rows = append(rows,
			interop{tool: c.tool, what: "sign with a publisher's P-256 key; verified here", before: "push breast-cancer:2.0.0 NEW", line: "sign --key publisher.key" + c.upload + "NEW", then: "verify NEW"},
			interop{tool: c.tool, what: "sign with a publisher's Ed25519 key; verified here", before: "push breast-cancer:2.0.0 NEW", line: "sign --key ed.key" + c.upload + "NEW", then: "verify NEW"},
			interop{tool: c.tool, what: "attest a release with a publisher's key; verified here", before: "push breast-cancer:2.0.0 NEW",
				line: "attest --key publisher.key --type " + cosignRelease + " --predicate empty.json" + c.upload + "NEW", then: "verify NEW"},
			interop{tool: c.tool, what: "attest an evaluation with an evaluator's key; verified here", before: "push breast-cancer:1.0.0 NEW",
				line: "attest --key evaluator.key --type " + evidence.TypeEvaluation + " --predicate v1/evaluation.json" + c.upload + "NEW", then: "verify NEW --require evaluation"},
			interop{tool: c.tool, what: "verify what Waybill signed with an Ed25519 key", before: "push breast-cancer:2.0.0 NEW; sign NEW --key ed.key",
				line: "verify" + c.format + " --allow-insecure-registry --key ed.pub --insecure-ignore-tlog --trusted-root root.json NEW"},
		)
	}
	return rows
}

// onFolder is tried with the files of the artifact, as pull writes them.
func onFolder() []interop {
	return []interop{
		{tool: "model_signing", what: "verify key: what sign --oms made", line: "verify key FOLDER --signature ours.sig --public_key publisher.pub"},
		{tool: "model_signing", what: "sign key, P-256; verified by oms verify", line: "sign key FOLDER --private_key p256.pem --signature OUT", then: "oms verify FOLDER --signature OUT --public-key p256.pub"},
		{tool: "model_signing", what: "sign key, P-384; verified by oms verify", line: "sign key FOLDER --private_key p384.pem --signature OUT", then: "oms verify FOLDER --signature OUT --public-key p384.pub"},
	}
}

// furnishTheirs adds to furnishSigned what theirsOnRegistry needs: an artifact that nobody has signed, an evaluator and a
// publisher with an Ed25519 key.
func furnishTheirs(t *testing.T, x *trial) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(x.dir, "v2"), os.DirFS("../../examples/breast-cancer/v2")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(x.dir, "empty.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{"pack v2", "keys generate --role evaluator", "keys generate --role publisher --type ed25519 --out ed.key",
		"trust add trust.yaml evaluator.pub --role evaluator", "trust add trust.yaml ed.pub --role publisher", "trust sign trust.yaml --key root.key"} {
		x.must(strings.Fields(l)...)
	}
}

// pullWithOMS gives the folder of the pulled files, with an OMS signature ours.sig beside it and plain keys for the other side.
func pullWithOMS(t *testing.T, x *trial) string {
	t.Helper()
	for _, l := range []string{"push breast-cancer:1.0.0 {REG}/ml/files:1", "sign {REG}/ml/files:1 --oms --key publisher.key", "oms export {REG}/ml/files:1 --out ours.sig",
		"pull {REG}/ml/files:1 --out files"} {
		x.must(strings.Fields(l)...)
	}
	for name, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		public, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		for file, b := range map[string]*pem.Block{name + ".pem": {Type: "PRIVATE KEY", Bytes: private}, name + ".pub": {Type: "PUBLIC KEY", Bytes: public}} {
			if err := os.WriteFile(filepath.Join(x.dir, file), pem.EncodeToMemory(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return filepath.Join(x.dir, "files")
}
