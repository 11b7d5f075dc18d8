# METADATA
# scope: package
# title: "The unpacked files are signed"
# description: "An OpenSSF Model Signing statement covers the files, so that they can be checked where there is no registry."
# custom:
#   id: OMS-001
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: off, strict: warn, eu-high-risk: warn, edge: off}
#   severity: low
#   level: warn
#   remediation: "sign the files as well: waybill sign REF --oms --key publisher.key"
#   standards:
#     - "OpenSSF Model Signing v1.0"
#     - "OWASP ML10 Model Poisoning"
package waybill.rules.oms_001

import data.waybill.lib

signed := lib.attested_bundles("https://model_signing/signature/v1.0")

default pass := false

pass if count(signed) > 0

fail contains {"msg": "no verified model signing statement is attached", "evidence": []} if not pass
