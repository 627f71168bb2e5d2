#!/usr/bin/env bash
# Runs `flataudit gate`, keeps its report whatever it decides, and exits with its code.
#
# Every input is an environment variable; none is ever read as shell:
#   INPUT_CONFIG        policy file (default flataudit.yaml)
#   INPUT_MODEL         registered model, instead of the file's
#   INPUT_TRACKING_URI  registry, instead of MLFLOW_TRACKING_URI
#   INPUT_DRY_RUN       "true": decide, and write nothing to the registry
#   INPUT_ARGUMENTS     further arguments, one a line
#   INPUT_OUT           new folder for records and reports
# Written: the Markdown report to GITHUB_STEP_SUMMARY; decision, promoted, report and exit-code to GITHUB_OUTPUT.
set -uo pipefail

out=${INPUT_OUT:-${RUNNER_TEMP:-/tmp}/flataudit-${GITHUB_RUN_ID:-local}-${GITHUB_RUN_ATTEMPT:-1}-$$}
arguments=(gate --json --out "$out" --config "${INPUT_CONFIG:-flataudit.yaml}")
[[ -n ${INPUT_MODEL:-} ]] && arguments+=(--model "$INPUT_MODEL")
[[ -n ${INPUT_TRACKING_URI:-} ]] && arguments+=(--tracking-uri "$INPUT_TRACKING_URI")
case ${INPUT_DRY_RUN:-false} in
  true) arguments+=(--dry-run) ;;
  false) ;;
  *)
    echo "error: expected dry-run true or false, got '$INPUT_DRY_RUN'; correct the step's input" >&2
    exit 2
    ;;
esac
while IFS= read -r argument; do
  [[ -n $argument ]] && arguments+=("$argument")
done <<<"${INPUT_ARGUMENTS:-}"

document=$(mktemp)
trap 'rm -f "$document"' EXIT
flataudit "${arguments[@]}" >"$document"
code=$?
cat "$document"

# One value of the JSON document as one line; empty where there is none, or no document at all.
field() {
  python3 -c '
import json, sys
try:
    value = json.load(open(sys.argv[1], encoding="utf-8"))
    for key in sys.argv[2].split("."):
        value = value[key]
except (OSError, ValueError, KeyError, TypeError):
    value = None
print(" ".join(str("" if value is None else value).split()))
' "$document" "$1"
}

promoted=$(field receipt.promoted)
if [[ -n ${GITHUB_OUTPUT:-} ]]; then
  {
    echo "decision=$(field decision)"
    echo "promoted=$promoted"
    echo "report=$out"
    echo "exit-code=$code"
  } >>"$GITHUB_OUTPUT"
fi
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
  {
    if [[ -f $out/report.md ]]; then
      cat "$out/report.md"
      # The report was written before the registry was asked to move the alias.
      [[ -n $promoted ]] && printf '\nThe champion alias points to version %s now.\n' "$promoted"
    else
      echo "flataudit gate ended with exit code $code and wrote no report; the log of the step says why."
    fi
  } >>"$GITHUB_STEP_SUMMARY"
fi
exit "$code"
