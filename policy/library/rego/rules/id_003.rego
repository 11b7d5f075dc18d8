# METADATA
# scope: package
# title: "Artifact is a ModelPack artifact of this namespace"
# description: "The manifest is a strict ModelPack image manifest and its model belongs to the namespace that the environment serves."
# custom:
#   id: ID-003
#   category: identity
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "push to the environment's namespace; see: waybill env show ENV"
#   standards:
#     - "CNCF ModelPack v1"
#     - "OCI image-spec 1.1"
package waybill.rules.id_003

default pass := false

pass if {
	input.artifact.mediaType == "application/vnd.oci.image.manifest.v1+json"
	input.artifact.artifactType == "application/vnd.cncf.model.manifest.v1+json"
	input.artifact.configMediaType == "application/vnd.cncf.model.config.v1+json"
	input.artifact.resourceUri == sprintf("waybill:%s/%s", [input.environment.namespace, input.model.name])
}

fail contains {"msg": sprintf("%s (%s) is not a ModelPack artifact of namespace %s", [input.artifact.resourceUri, input.artifact.artifactType, input.environment.namespace]), "evidence": []} if not pass
