// Package trust is the signed trust document: which key may say what, about which models, environments and
// channels. It is data and its rules only (light): no network, no sigstore. oci/verify applies it.
package trust

import (
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Role is what a key may do. One key has one role.
type Role string

// Roles.
const (
	RoleRoot      Role = "root"      // signs trust documents
	RolePublisher Role = "publisher" // signs releases: "built by us", not "approved"
	RoleEvaluator Role = "evaluator" // evaluation/v1, dataset/v1, test-result
	RoleApprover  Role = "approver"  // approval/v1, exception/v1
	RoleGate      Role = "gate"      // VSA, decision/v1
	RoleDeployer  Role = "deployer"  // channel/v1, deployment/v1
	RoleRefresher Role = "refresher" // channel/v1 that extends expiry only
	RoleDevice    Role = "device"    // status/v1
	RolePolicy    Role = "policy"    // policy/v1: which rules a gate may apply, and nothing about models
)

// Schema is the value of Document.Schema.
const Schema = "https://github.com/waybill-ml/waybill/predicate/trust/v1"

// Document is trust/v1, written as trust.yaml and signed by the root threshold. Field names are the same in
// YAML and JSON.
type Document struct {
	Schema     string            `json:"schema" yaml:"schema"`
	Version    int               `json:"version" yaml:"version"`       // rises by 1 with every change
	Generation int               `json:"generation" yaml:"generation"` // rises only with a root rotation that resets channels
	Issued     time.Time         `json:"issued" yaml:"issued"`
	Expires    time.Time         `json:"expires" yaml:"expires"`
	Threshold  int               `json:"threshold" yaml:"threshold"` // root signatures needed for this and the next version
	Keys       []Key             `json:"keys" yaml:"keys"`
	Policies   []artifact.Digest `json:"policies" yaml:"policies"` // pinned policy digests that devices accept in a VSA
	Revoked    []string          `json:"revoked" yaml:"revoked"`   // ids of keys and identities
	Denied     []artifact.Digest `json:"denied" yaml:"denied"`     // artifact digests
	// Identities may sign with short-lived certificates; they need Keyless. Without any, Keyless proves the times of bundles that keys signed.
	Identities []Identity `json:"identities,omitempty" yaml:"identities,omitempty"`
	Keyless    *Keyless   `json:"keyless,omitempty" yaml:"keyless,omitempty"`
	// Rules say more about predicate types than the table of roles does; at most one per type.
	Rules []Rule `json:"rules,omitempty" yaml:"rules,omitempty"`
	// Environments pins the signed environments document; nil: any that the roots signed.
	Environments *EnvironmentsPin `json:"environments,omitempty" yaml:"environments,omitempty"`
}

// Rule is what this organisation demands of the statements of one predicate type. It never allows what RolesFor forbids:
// only for a type that Waybill does not know does it name the roles.
type Rule struct {
	PredicateType string   `json:"predicateType" yaml:"predicateType"`             // the full type
	Roles         []Role   `json:"roles,omitempty" yaml:"roles,omitempty"`         // custom types only: publisher, evaluator, approver
	Signers       []string `json:"signers,omitempty" yaml:"signers,omitempty"`     // key ids; empty: every key of the roles
	Require       int      `json:"require,omitempty" yaml:"require,omitempty"`     // different signers that are needed; 0: none
	MaxAge        string   `json:"maxAge,omitempty" yaml:"maxAge,omitempty"`       // 90d, 12h; empty: no limit
	Timestamp     bool     `json:"timestamp,omitempty" yaml:"timestamp,omitempty"` // a verified timestamp is needed
}

// EnvironmentsPin names the least version of the environments document, and with Digest which document of that version.
type EnvironmentsPin struct {
	Version int             `json:"version" yaml:"version"`
	Digest  artifact.Digest `json:"digest,omitempty" yaml:"digest,omitempty"`
}

// Key is one public key with its one role and its scope.
type Key struct {
	ID     string `json:"id" yaml:"id"`         // hex sha256 of the DER SubjectPublicKeyInfo
	Name   string `json:"name" yaml:"name"`     // for people: "release team"
	Role   Role   `json:"role" yaml:"role"`     //
	Public string `json:"public" yaml:"public"` // PEM SubjectPublicKeyInfo: ECDSA P-256 or Ed25519
	Scope  Scope  `json:"scope" yaml:"scope"`
	// ApproverRoles are the approval roles ("ml-lead") that an approver key may fill.
	ApproverRoles []string `json:"approverRoles,omitempty" yaml:"approverRoles,omitempty"`
	// Until retires the key: what it says was made at or after this time, or at no known time, does not count.
	Until *time.Time `json:"until,omitempty" yaml:"until,omitempty"`
}

// Scope limits a key. Each list holds path.Match patterns; an empty list means nothing is allowed there, "*" everything.
// Roles that have nothing to do with a dimension ignore it (docs/format.md has the table).
type Scope struct {
	Models   []string `json:"models" yaml:"models"`
	Envs     []string `json:"envs" yaml:"envs"`
	Channels []string `json:"channels" yaml:"channels"`
}
