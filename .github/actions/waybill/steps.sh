#!/bin/sh
# The steps from an approved model to a gated release and where it runs, for any CI: usage: steps.sh STEP, where STEP is one of the functions
# below. Every value comes in a WB_* variable and is only ever a quoted word, so nothing that a value holds is run; paths and
# references are checked before the first step that writes. What one step leaves for the next is in the folder WB_STATE.
# Exit codes are those of waybill: 4 is a denial, which still leaves digest, verdict and reports behind.
set -eu
umask 077
LC_ALL=C
export LC_ALL
nl='
'
cr=$(printf '\r')

fail() {
  printf 'waybill step: %s\n' "$1" >&2
  exit 2
}

# Secrets of a GitLab project are variables of these names; GitHub's action hands them over as inputs.
WB_KEY=${WB_KEY:-${WAYBILL_CI_KEY:-}}
WB_PASSWORD=${WB_PASSWORD:-${WAYBILL_CI_PASSWORD:-}}
WB_GATE_KEY=${WB_GATE_KEY:-${WAYBILL_CI_GATE_KEY:-}}
WB_GATE_PASSWORD=${WB_GATE_PASSWORD:-${WAYBILL_CI_GATE_PASSWORD:-}}
WB_DEPLOY_KEY=${WB_DEPLOY_KEY:-${WAYBILL_CI_DEPLOY_KEY:-}}
WB_DEPLOY_PASSWORD=${WB_DEPLOY_PASSWORD:-${WAYBILL_CI_DEPLOY_PASSWORD:-}}
WB_SIGN=${WB_SIGN:-keyless}
WB_GATE_SIGN=${WB_GATE_SIGN:-keyless}
WB_DEPLOY_SIGN=${WB_DEPLOY_SIGN:-keyless}
WB_DEPLOY=${WB_DEPLOY:-no}
unset WAYBILL_GATE_KEY WAYBILL_OUTPUT WAYBILL_QUIET WAYBILL_VERBOSE # would change what the steps ask for

# mask tells GitHub's runner which texts to blank out in the log, line by line, since it masks lines.
mask() {
  [ -n "${GITHUB_ACTIONS:-}" ] || return 0
  for secret in "$WB_PASSWORD" "$WB_GATE_PASSWORD" "$WB_DEPLOY_PASSWORD" "${WB_REGISTRY_PASSWORD:-}"; do masklines "$secret"; done
  for secret in "$WB_KEY" "$WB_GATE_KEY" "$WB_DEPLOY_KEY"; do
    case $secret in *-----BEGIN*) masklines "$secret" ;; esac # a path or the URI of a key is no secret
  done
}

masklines() {
  printf '%s\n' "$1" | tr -d '\r' | sed -e '/^ *$/d' -e '/^-----/d' -e 's/%/%25/g' -e 's/^/::add-mask::/'
}

# begin makes the folder of this run and refuses values that are not what they should be.
begin() {
  mask
  check
  WB_STATE=$(mktemp -d "${RUNNER_TEMP:-${TMPDIR:-/tmp}}/waybill.XXXXXX")
  mkdir "$WB_STATE/store" "$WB_STATE/reports"
  if [ -n "${GITHUB_OUTPUT:-}" ]; then printf 'state=%s\n' "$WB_STATE" >>"$GITHUB_OUTPUT"; fi
}

check() {
  for value in "${WB_PROJECT:-}" "${WB_FROM:-}" "${WB_TRUST:-}" "${WB_ENVIRONMENTS:-}" "${WB_POLICY:-}" "${WB_SIGNING_CONFIG:-}" "${WB_DIR:-}" "${WB_BINARY:-}" "${WB_RUNTIME:-}"; do
    case $value in *"$nl"* | *"$cr"*) fail 'a path or a source holds a line break' ;; esac
  done
  plain environment "${WB_ENVIRONMENT:-}" 'A-Za-z0-9._-'
  plain tag "${WB_TAG:-}" 'A-Za-z0-9._-'
  plain image "${WB_IMAGE:-}" 'A-Za-z0-9._:/-'
  plain reference "${WB_REF:-}" 'A-Za-z0-9._:/@-'
  plain name "${WB_NAME:-}" 'A-Za-z0-9._/-'
  plain 'model version' "${WB_MODEL_VERSION:-}" 'A-Za-z0-9._+-'
  plain license "${WB_LICENSE:-}" 'A-Za-z0-9.+() -'
  plain 'waybill version' "${WB_VERSION:-}" 'A-Za-z0-9._+-'
  plain sha256 "${WB_SHA256:-}" '0-9a-f'
  plain images "${WB_IMAGES:-}" 'A-Za-z0-9._:/@,= -'
  plain targets "${WB_TARGETS:-}" 'a-z0-9 -'
  case ${WB_RELEASES:-https://} in https://*) ;; *) fail 'releases must be an https URL' ;; esac
  case $WB_SIGN in key | keyless | none) ;; *) fail 'sign must be key, keyless or none' ;; esac
  case $WB_GATE_SIGN in key | keyless | dry-run) ;; *) fail 'gate-sign must be key, keyless or dry-run' ;; esac
  # Secrets are empty in jobs of forks: going on without a signature would be the wrong answer to that.
  [ "$WB_SIGN" != key ] || [ -n "$WB_KEY" ] || [ -n "${WB_REF:-}" ] || fail 'sign is key, and the key is empty'
  [ -z "${WB_ENVIRONMENT:-}" ] || [ "$WB_GATE_SIGN" != key ] || [ -n "$WB_GATE_KEY" ] || fail 'gate-sign is key, and gate-key is empty'
  checkdeploy
  if [ -n "${WB_REF:-}" ]; then
    # shellcheck disable=SC2015 # fail never returns
    digestof "${WB_REF##*@}" && [ "$WB_REF" != "${WB_REF##*@}" ] || fail 'reference must name a digest: REPOSITORY@sha256:...'
    [ -n "${WB_ENVIRONMENT:-}" ] || fail 'a reference without an environment leaves nothing to do'
  else
    if [ -n "${WB_ENVIRONMENT:-}" ] && [ "$WB_SIGN$WB_GATE_SIGN" = keylesskeyless ]; then
      # Trust gives one role to an identity: who publishes cannot be who decides.
      fail 'sign and gate-sign are both keyless, and a job has one identity: give gate-sign a key, or gate in another workflow by reference'
    fi
    [ -n "${WB_IMAGE:-}" ] || fail 'image is empty: the repository to push to, without a tag'
    case ${WB_IMAGE##*/} in *:*) fail 'image holds a tag: name the repository, and the tag as tag' ;; esac
  fi
}

# checkdeploy is about what comes after the gate.
checkdeploy() {
  case $WB_DEPLOY in no | plan | yes) ;; *) fail 'deploy must be no, plan or yes' ;; esac
  case $WB_DEPLOY_SIGN in key | keyless) ;; *) fail 'deploy-sign must be key or keyless' ;; esac
  for word in ${WB_IMAGES:-}; do
    case $word in plain=?* | plain@?*=?* | lambda=?* | lambda@?*=?* | sagemaker=?* | sagemaker@?*=?* | vertex=?* | vertex@?*=?* | modelcar=?* | modelcar@?*=?*) ;;
    *) fail 'each of images is CONTRACT=REPOSITORY, or CONTRACT@PLATFORM=REPOSITORY; contracts are plain, lambda, sagemaker, vertex and modelcar' ;;
    esac
  done
  for word in ${WB_TARGETS:-}; do
    case $word in -*) fail 'a target begins with a dash' ;; esac
  done
  if [ -n "${WB_IMAGES:-}" ]; then
    [ -n "${WB_ENVIRONMENT:-}" ] || fail 'images without an environment: they are made of what its gate let pass'
    [ "$WB_SIGN" != none ] || fail 'images are signed by a publisher, and sign is none'
    [ "$WB_SIGN" != key ] || [ -n "$WB_KEY" ] || fail 'sign is key, and the key is empty'
    [ "$WB_SIGN$WB_GATE_SIGN" != keylesskeyless ] || fail 'sign and gate-sign are both keyless, and a job has one identity: sign images with a key'
  fi
  [ "$WB_DEPLOY" != no ] || return 0
  [ -n "${WB_ENVIRONMENT:-}" ] || fail 'deploy without an environment: its targets stand there'
  [ "$WB_GATE_SIGN" != dry-run ] || fail 'deploy needs a verdict that is attached, and gate-sign is dry-run'
  [ "$WB_DEPLOY" = yes ] || return 0
  if [ "$WB_DEPLOY_SIGN" = key ]; then
    [ -n "$WB_DEPLOY_KEY" ] || fail 'deploy-sign is key, and deploy-key is empty'
    return 0
  fi
  [ "$WB_GATE_SIGN" != keyless ] || fail 'gate-sign and deploy-sign are both keyless, and a job has one identity: give deploy-sign a key'
  if [ "$WB_SIGN" = keyless ] && { [ -z "${WB_REF:-}" ] || [ -n "${WB_IMAGES:-}" ]; }; then
    fail 'sign and deploy-sign are both keyless, and a job has one identity: give deploy-sign a key'
  fi
}

# plain NAME VALUE CHARACTERS: a value of these characters alone that is no flag.
plain() {
  case $2 in
  -*) fail "$1 begins with a dash" ;;
  *[!$3]*) fail "$1 holds a character other than $3" ;;
  esac
}

digestof() {
  case $1 in sha256:*[!0-9a-f]*) return 1 ;; sha256:*) [ ${#1} = 71 ] ;; *) return 1 ;; esac
}

# fetch leaves the path of a waybill in the state: the one that is named, or a release whose SHA-256 is the one that is asked for.
fetch() {
  inside
  if [ -n "${WB_BINARY:-}" ]; then
    path=$(command -v -- "$WB_BINARY") || fail 'the waybill that is named is not there, or no program'
    case $path in /*) ;; *) path=$PWD/$path ;; esac
    printf '%s\n' "$path" >"$WB_STATE/binary"
    return
  fi
  [ -n "${WB_VERSION:-}" ] || fail 'neither a version of waybill to fetch nor a path to one is named'
  [ ${#WB_SHA256} = 64 ] || fail 'a release is pinned by its SHA-256, the line of this platform in its SHA256SUMS'
  case $(uname -s) in Linux) os=linux ;; Darwin) os=darwin ;; *) fail 'there is no release for this system that this step could run' ;; esac
  case $(uname -m) in x86_64 | amd64) arch=amd64 ;; aarch64 | arm64) arch=arm64 ;; *) fail 'there is no release for this processor' ;; esac
  mkdir -p "$WB_STATE/bin"
  curl --fail --silent --show-error --location --retry 3 --proto '=https' --output "$WB_STATE/fetched" \
    "${WB_RELEASES:-https://github.com/waybill-ml/waybill/releases/download}/$WB_VERSION/waybill-$os-$arch"
  if command -v sha256sum >/dev/null; then sum=$(sha256sum <"$WB_STATE/fetched"); else sum=$(shasum -a 256 <"$WB_STATE/fetched"); fi
  if [ "${sum%% *}" != "$WB_SHA256" ]; then
    rm -f "$WB_STATE/fetched"
    printf 'waybill step: the release has SHA-256 %s, not the one that is pinned\n' "${sum%% *}" >&2
    exit 3
  fi
  chmod 0755 "$WB_STATE/fetched"
  mv "$WB_STATE/fetched" "$WB_STATE/bin/waybill"
  printf '%s\n' "$WB_STATE/bin/waybill" >"$WB_STATE/binary"
}

inside() {
  [ -d "${WB_STATE:-}" ] || fail 'the step begin has not run'
  if [ -n "${WB_DIR:-}" ]; then
    CDPATH='' cd -- "$WB_DIR"
  fi
}

# run FILE ARGUMENT...: waybill with its answer in FILE. What it says goes to the log, where GitHub must not take
# a line of it for a command: names of files and texts of evidence are foreign.
run() {
  answer=$1
  shift
  binary=$(cat "$WB_STATE/binary")
  token=
  if [ -n "${GITHUB_ACTIONS:-}" ]; then
    token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    printf '::stop-commands::%s\n' "$token"
  fi
  code=0
  (
    export WAYBILL_HOME="$WB_STATE/store"
    if [ -n "${WB_REGISTRY_USERNAME:-}" ]; then
      export WAYBILL_REGISTRY_USERNAME="$WB_REGISTRY_USERNAME" WAYBILL_REGISTRY_PASSWORD="${WB_REGISTRY_PASSWORD:-}"
    fi
    unset WB_KEY WB_GATE_KEY WB_DEPLOY_KEY WB_PASSWORD WB_GATE_PASSWORD WB_DEPLOY_PASSWORD WB_REGISTRY_PASSWORD
    unset WAYBILL_CI_KEY WAYBILL_CI_GATE_KEY WAYBILL_CI_DEPLOY_KEY WAYBILL_CI_PASSWORD WAYBILL_CI_GATE_PASSWORD WAYBILL_CI_DEPLOY_PASSWORD
    exec "$binary" "$@" 2>&1 >"$answer" </dev/null
  ) || code=$?
  if [ -n "$token" ]; then printf '\n::%s::\n' "$token"; fi
  return "$code"
}

# keyfile ROLE KEY: prints where the key is: KEY itself when it is a path or a URI; a key's own text goes into a file.
keyfile() {
  case $2 in
  *-----BEGIN*)
    printf '%s\n' "$2" >"$WB_STATE/$1.key"
    printf '%s\n' "$WB_STATE/$1.key"
    ;;
  *) printf '%s\n' "$2" ;;
  esac
}

pack() {
  inside
  set -- pack
  if [ -n "${WB_FROM:-}" ]; then set -- "$@" "--from=$WB_FROM"; fi
  if [ -n "${WB_NAME:-}" ]; then set -- "$@" "--name=$WB_NAME"; fi
  if [ -n "${WB_MODEL_VERSION:-}" ]; then set -- "$@" "--version=$WB_MODEL_VERSION"; fi
  if [ -n "${WB_LICENSE:-}" ]; then set -- "$@" "--license=$WB_LICENSE"; fi
  # A model from elsewhere needs no project; one that is named must be there all the same.
  if [ -z "${WB_FROM:-}" ] || [ "${WB_PROJECT:-.}" != . ] || [ -e waybill.yaml ]; then set -- "$@" -- "${WB_PROJECT:-.}"; fi
  run "$WB_STATE/packed" "$@"
  local_ref=$(cat "$WB_STATE/packed")
  digestof "${local_ref##*@}" || fail 'pack printed no digest'
  printf '%s\n' "${local_ref##*@}" >"$WB_STATE/digest"
}

sign() {
  inside
  [ "$WB_SIGN" != none ] || return 0
  set -- sign
  if [ "$WB_SIGN" = key ]; then set -- "$@" "--key=$(keyfile publisher "$WB_KEY")"; else set -- "$@" --keyless; fi
  if [ -n "${WB_SIGNING_CONFIG:-}" ] && [ "$WB_SIGN" = keyless ]; then set -- "$@" "--signing-config=$WB_SIGNING_CONFIG"; fi
  if [ -n "${WB_TRUST:-}" ]; then set -- "$@" "--trust=$WB_TRUST"; fi
  if [ -n "$WB_PASSWORD" ]; then export WAYBILL_PASSWORD="$WB_PASSWORD"; fi
  run "$WB_STATE/signed" "$@" -- "$(cat "$WB_STATE/packed")"
}

# stage brings the artifact with its evidence to the registry, under a tag that says it is a candidate, so that others can
# measure and approve the digest; the release's own tag is set by promote.
stage() {
  inside
  digest=$(cat "$WB_STATE/digest")
  hex=$(printf '%s' "${digest#sha256:}" | cut -c1-16)
  run "$WB_STATE/pushed" push -- "$(cat "$WB_STATE/packed")" "$WB_IMAGE:candidate-$hex"
  printf '%s@%s\n' "$WB_IMAGE" "$digest" >"$WB_STATE/reference"
}

gate() {
  inside
  if [ -n "${WB_REF:-}" ]; then
    printf '%s\n' "${WB_REF##*@}" >"$WB_STATE/digest"
    printf '%s\n' "$WB_REF" >"$WB_STATE/reference"
  fi
  reports=$WB_STATE/reports
  set -- gate "--env=$WB_ENVIRONMENT" --output=json "--report=sarif=$reports/gate.sarif" "--report=junit=$reports/gate.xml" \
    "--report=markdown=$reports/gate.md" "--report=gitlab=$reports/gate.codequality.json" "--report=github=$WB_STATE/annotations"
  case $WB_GATE_SIGN in
  key) set -- "$@" "--key=$(keyfile gate "$WB_GATE_KEY")" ;;
  keyless) set -- "$@" --keyless ;;
  dry-run) set -- "$@" --dry-run ;;
  esac
  if [ -n "${WB_SIGNING_CONFIG:-}" ] && [ "$WB_GATE_SIGN" = keyless ]; then set -- "$@" "--signing-config=$WB_SIGNING_CONFIG"; fi
  if [ -n "${WB_TRUST:-}" ]; then set -- "$@" "--trust=$WB_TRUST"; fi
  if [ -n "${WB_ENVIRONMENTS:-}" ]; then set -- "$@" "--environments=$WB_ENVIRONMENTS"; fi
  if [ -n "${WB_POLICY:-}" ]; then set -- "$@" "--policy=$WB_POLICY"; fi
  if [ -n "$WB_GATE_PASSWORD" ]; then export WAYBILL_PASSWORD="$WB_GATE_PASSWORD"; fi
  denied=0
  run "$reports/decision.json" "$@" -- "$(cat "$WB_STATE/reference")" || denied=$?
  # Anything but a clean end is no permission, whatever the answer says.
  case $denied in
  0) verdict=PASSED ;;
  4) verdict=FAILED ;;
  *) verdict= ;;
  esac
  printf '%s\n' "$verdict" >"$WB_STATE/verdict"
  if [ -n "${GITHUB_ACTIONS:-}" ] && [ -f "$WB_STATE/annotations" ]; then cat "$WB_STATE/annotations"; fi
  if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -f "$reports/gate.md" ]; then cat "$reports/gate.md" >>"$GITHUB_STEP_SUMMARY"; fi
  return "$denied"
}

# promote sets the release's tag, on what has just passed and nothing else.
promote() {
  inside
  [ -n "${WB_TAG:-}" ] || return 0
  [ "$WB_GATE_SIGN" != dry-run ] || return 0
  [ "$(cat "$WB_STATE/verdict" 2>/dev/null)" = PASSED ] || fail 'nothing has passed the gate'
  reference=$(cat "$WB_STATE/reference")
  run "$WB_STATE/promoted" copy -- "$reference" "${reference%@*}:$WB_TAG"
}

# images makes of the artifact what targets run, one for each of WB_IMAGES: signed by the publisher, and found by deploy through
# the artifact's digest.
images() {
  inside
  [ -n "${WB_IMAGES:-}" ] || return 0
  [ "$WB_GATE_SIGN" != dry-run ] || return 0
  [ "$(cat "$WB_STATE/verdict" 2>/dev/null)" = PASSED ] || fail 'nothing has passed the gate'
  for word in $WB_IMAGES; do
    contract=${word%%=*}
    set -- image "--variant=${contract%%@*}" "--push=${word#*=}"
    case $contract in *@*) set -- "$@" "--platform=${contract#*@}" ;; esac
    if [ -n "${WB_RUNTIME:-}" ]; then set -- "$@" "--runtime=$WB_RUNTIME"; fi
    if [ "$WB_SIGN" = key ]; then set -- "$@" "--key=$(keyfile publisher "$WB_KEY")"; else set -- "$@" --keyless; fi
    if [ -n "${WB_SIGNING_CONFIG:-}" ] && [ "$WB_SIGN" = keyless ]; then set -- "$@" "--signing-config=$WB_SIGNING_CONFIG"; fi
    if [ -n "${WB_TRUST:-}" ]; then set -- "$@" "--trust=$WB_TRUST"; fi
    if [ -n "$WB_PASSWORD" ]; then export WAYBILL_PASSWORD="$WB_PASSWORD"; fi
    run "$WB_STATE/image" "$@" -- "$(cat "$WB_STATE/reference")"
  done
}

# deploy brings what has just passed to the targets of the environment, or says what that would change. The platforms' credentials
# are those of the job. When a target fails, waybill takes the others back (exit code 8).
deploy() {
  inside
  [ "$WB_DEPLOY" != no ] || return 0
  [ "$(cat "$WB_STATE/verdict" 2>/dev/null)" = PASSED ] || fail 'nothing has passed the gate'
  set -- deploy "--env=$WB_ENVIRONMENT" --output=json
  for word in ${WB_TARGETS:-}; do set -- "$@" "--target=$word"; done
  if [ "$WB_DEPLOY" = plan ]; then
    set -- "$@" --dry-run
  else
    set -- "$@" --yes
    if [ "$WB_DEPLOY_SIGN" = key ]; then set -- "$@" "--key=$(keyfile deployer "$WB_DEPLOY_KEY")"; else set -- "$@" --keyless; fi
    if [ -n "${WB_SIGNING_CONFIG:-}" ] && [ "$WB_DEPLOY_SIGN" = keyless ]; then set -- "$@" "--signing-config=$WB_SIGNING_CONFIG"; fi
  fi
  if [ -n "${WB_TRUST:-}" ]; then set -- "$@" "--trust=$WB_TRUST"; fi
  if [ -n "${WB_ENVIRONMENTS:-}" ]; then set -- "$@" "--environments=$WB_ENVIRONMENTS"; fi
  if [ -n "$WB_DEPLOY_PASSWORD" ]; then export WAYBILL_PASSWORD="$WB_DEPLOY_PASSWORD"; fi
  ended=0
  run "$WB_STATE/reports/deploy.json" "$@" -- "$(cat "$WB_STATE/reference")" >"$WB_STATE/deploy.log" || ended=$?
  cat "$WB_STATE/deploy.log"
  case $ended$WB_DEPLOY in
  0plan) deployed=planned ;;
  0yes) deployed=deployed ;;
  8*) deployed='rolled back' ;;
  *) deployed=failed ;;
  esac
  printf '%s\n' "$deployed" >"$WB_STATE/deployed"
  if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then
    # Indented, so that no text in it is Markdown.
    { printf '\n## Deployment to %s: %s\n\n' "$WB_ENVIRONMENT" "$deployed" && sed -e '/^::/d' -e 's/^/    /' "$WB_STATE/deploy.log"; } >>"$GITHUB_STEP_SUMMARY"
  fi
  if [ -n "${GITHUB_ACTIONS:-}" ] && [ "$ended" != 0 ]; then printf '::error title=Waybill::deployment to %s: %s\n' "$WB_ENVIRONMENT" "$deployed"; fi
  return "$ended"
}

# outputs names what there is, also after a failure.
outputs() {
  inside
  for name in digest reference verdict deployed; do
    value=
    if [ -f "$WB_STATE/$name" ]; then value=$(cat "$WB_STATE/$name"); fi
    if [ -n "${GITHUB_OUTPUT:-}" ]; then printf '%s=%s\n' "$name" "$value" >>"$GITHUB_OUTPUT"; fi
    if [ -n "${WB_OUT:-}" ]; then printf 'WAYBILL_%s=%s\n' "$(printf '%s' "$name" | tr '[:lower:]' '[:upper:]')" "$value" >>"$WB_OUT/waybill.env"; fi
  done
  if [ -n "${GITHUB_OUTPUT:-}" ]; then
    for pair in sarif=gate.sarif junit=gate.xml summary=gate.md decision=decision.json deployment=deploy.json; do
      file=$WB_STATE/reports/${pair#*=}
      if [ -s "$file" ]; then printf '%s=%s\n' "${pair%%=*}" "$file" >>"$GITHUB_OUTPUT"; fi
    done
  fi
  if [ -n "${WB_OUT:-}" ]; then
    for file in "$WB_STATE"/reports/*; do
      if [ -s "$file" ]; then cp "$file" "$WB_OUT/"; fi
    done
  fi
}

# end takes keys and the local copy of the artifact away; the reports stay until the runner clears its own folder.
end() {
  [ -d "${WB_STATE:-}" ] || return 0
  rm -rf "${WB_STATE:?}/publisher.key" "$WB_STATE/gate.key" "$WB_STATE/deployer.key" "$WB_STATE/store" "${WB_STATE:?}/bin"
}

# all goes through every step where a CI has one script for a job. Results and reports go into the folder WB_OUT.
all() {
  begin
  if [ -n "${WB_OUT:-}" ]; then
    mkdir -p -- "$WB_OUT"
    WB_OUT=$(CDPATH='' cd -- "$WB_OUT" && pwd)
    # What an earlier run, or the repository, has put there is no result of this one.
    for name in gate.sarif gate.xml gate.md gate.codequality.json decision.json deploy.json waybill.env; do rm -f "$WB_OUT/$name"; done
    : >"$WB_OUT/waybill.env"
  fi
  export WB_STATE WB_OUT
  steps='fetch pack sign stage'
  if [ -n "${WB_REF:-}" ]; then steps=fetch; fi
  if [ -n "${WB_ENVIRONMENT:-}" ]; then steps="$steps gate promote images deploy"; fi
  failed=0
  for step in $steps; do
    # A shell of its own, in which a failing line ends the step: set -e sleeps on the left of a ||.
    if [ -n "${WB_STEPS:-}" ]; then sh -c "$WB_STEPS" steps.sh "$step"; else sh "$0" "$step"; fi || {
      failed=$?
      break
    }
  done
  outputs
  rm -rf "$WB_STATE"
  return "$failed"
}

case ${1:-} in
begin | fetch | pack | sign | stage | gate | promote | images | deploy | outputs | end | all) "$1" ;;
*) fail 'usage: steps.sh begin|fetch|pack|sign|stage|gate|promote|images|deploy|outputs|end|all' ;;
esac
