"""The Waybill step as a Kubeflow Pipelines component: pack the model that an approved run left, sign, push, gate, tag, deploy.

    from waybill_component import waybill_step
    step = waybill_step(image="REGISTRY/waybill@sha256:...")

Written out as a file that any pipeline can load:

    python waybill_component.py --image REGISTRY/waybill@sha256:... --out waybill.yaml

The image needs sh and waybill, and is taken by digest only. Secrets are no parameters, since those are kept in the clear with
each run: give the task WAYBILL_CI_KEY, WAYBILL_CI_PASSWORD, WAYBILL_CI_GATE_KEY, WAYBILL_CI_GATE_PASSWORD,
WAYBILL_CI_DEPLOY_KEY and WAYBILL_CI_DEPLOY_PASSWORD from Kubernetes secrets (kfp-kubernetes: use_secret_as_env). Values reach the shell as arguments, never as code.
"""
import argparse
import pathlib
import re

from kfp import compiler, dsl

STEPS = (pathlib.Path(__file__).resolve().parents[2] / ".github/actions/waybill/steps.sh").read_text()

# A failed container has no outputs in Kubeflow: a denial (exit code 4) may be handed on as the verdict instead.
SCRIPT = """set -eu
steps=$1 fail_on_denied=$2 digest=$3 verdict=$4 junit=$5 sarif=$6 deployment=$7
shift 7
WB_PROJECT=$1 WB_FROM=$2 WB_IMAGE=$3 WB_TAG=$4 WB_ENVIRONMENT=$5 WB_SIGN=$6 WB_GATE_SIGN=$7 WB_TRUST=$8 WB_ENVIRONMENTS=$9
shift 9
WB_MODEL_VERSION=$1 WB_NAME=$2 WB_LICENSE=$3 WB_DEPLOY=$4 WB_TARGETS=$5 WB_DEPLOY_SIGN=$6 WB_IMAGES=$7 WB_RUNTIME=$8 WB_BINARY=waybill
if [ "$WB_FROM" = mlflow: ]; then WB_FROM=mlflow:$WB_PROJECT WB_PROJECT=.; fi # the artifact itself is the MLflow model
WB_STEPS=$steps WB_OUT=$(mktemp -d)
export WB_PROJECT WB_FROM WB_IMAGE WB_TAG WB_ENVIRONMENT WB_SIGN WB_GATE_SIGN WB_TRUST WB_ENVIRONMENTS WB_MODEL_VERSION WB_NAME WB_LICENSE WB_BINARY WB_STEPS WB_OUT
export WB_DEPLOY WB_TARGETS WB_DEPLOY_SIGN WB_IMAGES WB_RUNTIME
code=0
sh -c "$steps" steps.sh all || code=$?
put() { mkdir -p "$(dirname "$2")"; cat "$1" >"$2"; }
value() { sed -n "s/^WAYBILL_$1=//p" "$WB_OUT/waybill.env" 2>/dev/null | tr -d '\\n' >"$WB_OUT/value"; put "$WB_OUT/value" "$2"; }
value DIGEST "$digest"
value VERDICT "$verdict"
[ ! -s "$WB_OUT/gate.xml" ] || put "$WB_OUT/gate.xml" "$junit"
[ ! -s "$WB_OUT/gate.sarif" ] || put "$WB_OUT/gate.sarif" "$sarif"
[ ! -s "$WB_OUT/deploy.json" ] || put "$WB_OUT/deploy.json" "$deployment"
rm -rf "$WB_OUT"
[ "$(cat "$verdict")" = FAILED ] || exit "$code"
[ "$code" != 4 ] || [ "$fail_on_denied" != no ] || exit 0
exit "$code"
"""


def waybill_step(image: str):
    """The component, run in image, which must name a digest. Outputs: digest, verdict (PASSED or FAILED) and three reports."""
    if not re.fullmatch(r"[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}", image):
        raise ValueError("the image must be pinned by its digest: REPOSITORY@sha256:...")

    @dsl.container_component
    def waybill(
        model: dsl.Input[dsl.Model],
        repository: str,
        digest: dsl.OutputPath(str),
        verdict: dsl.OutputPath(str),
        junit: dsl.Output[dsl.Artifact],
        sarif: dsl.Output[dsl.Artifact],
        deployment: dsl.Output[dsl.Artifact],
        environment: str,
        tag: str = "",
        source: str = "",
        name: str = "",
        model_version: str = "",
        license: str = "",
        sign: str = "key",
        gate_sign: str = "key",
        trust: str = "/etc/waybill/trust.signed",
        environments: str = "/etc/waybill/environments.signed",
        fail_on_denied: str = "yes",
        deploy: str = "no",
        targets: str = "",
        deploy_sign: str = "key",
        images: str = "",
        runtime: str = "",
    ):
        """Packs model, a folder with a waybill.yaml; with source "mlflow:" it is an MLflow model, any other source is taken as it is."""
        return dsl.ContainerSpec(
            image=image,
            command=["sh", "-c", SCRIPT, "waybill", STEPS],
            args=[fail_on_denied, digest, verdict, junit.path, sarif.path, deployment.path, model.path, source, repository, tag,
                  environment, sign, gate_sign, trust, environments, model_version, name, license,
                  deploy, targets, deploy_sign, images, runtime],
        )

    return waybill


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="write the component as a file that pipelines load")
    parser.add_argument("--image", required=True, help="image with sh and waybill, by digest")
    parser.add_argument("--out", required=True, help="file to write")
    args = parser.parse_args()
    compiler.Compiler().compile(waybill_step(args.image), args.out)
