package cli

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/policy/decision"
)

// schemaBase begins the "schema" field of every JSON output: schemaBase + "<command>/v1". Fields are only ever added.
const schemaBase = "https://github.com/waybill-ml/waybill/schema/"

const abiVersion = abi.Version

// formats lists the documents that this version reads and writes.
func formats() []string {
	return []string{
		artifact.ArtifactType, artifact.InterfaceSchema, artifact.GoldenSchema, artifact.MediaTypeBundle,
		evidence.TypeChannel, evidence.TypeTrust, decision.Schema,
	}
}
