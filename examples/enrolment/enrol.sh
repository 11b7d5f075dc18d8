#!/bin/sh
# Enrols COUNT devices twice over: first each device asks and is given its own file, then all of them from one shared
# file, as an image carries it. It plays the operator and the devices in folders of the working directory, which must hold
# trust.signed; waybill and waybill-edge must be in PATH. docs/enrolment.md tells the story.
#
#   enrol.sh COUNT TRUST-DIGEST
set -eu
count=${1:?usage: enrol.sh COUNT TRUST-DIGEST} digest=${2:?usage: enrol.sh COUNT TRUST-DIGEST}

# What all devices share. The trust document is pinned by version and digest; nothing is learnt on first use.
cat >template.json <<END
{
  "schema": "waybill.dev/edge-provisioning/v1",
  "trust": {"file": "trust.signed", "version": 1, "digest": "$digest"},
  "class": "edge-s", "listen": "127.0.0.1:0",
  "reports": [{"to": "http", "url": "https://reports.example/v1", "every": "12h"}],
  "channels": [{"name": "prod", "env": "prod", "registry": "reg.example", "repo": "ml/churn", "model": "churn", "resource_uri": "waybill:ml/churn"}]
}
END

# 1. Each device makes its key and a request. The operator knows serial numbers, sites and passwords.
echo serial,site >labels.csv
(umask 077 && echo serial,username,password >credentials.csv)
mkdir -p requests
i=1
while [ "$i" -le "$count" ]; do
  waybill-edge enroll --out "devices/$i" --class edge-s --label "serial=s-$i" >/dev/null 2>&1
  cp "devices/$i/request.json" "requests/$i.json"
  echo "s-$i,site-$((i % 7))" >>labels.csv
  echo "s-$i,device-$i,p4ss-$i-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')" >>credentials.csv
  i=$((i + 1))
done
waybill channel provision requests --template template.json --labels labels.csv --credentials credentials.csv --class edge-s --out fleet
waybill channel provision requests --template template.json --labels labels.csv --credentials credentials.csv --class edge-s --out fleet # changes nothing

# Each device is given its file; it refuses the one of another.
i=1
while [ "$i" -le "$count" ]; do
  id=$(waybill-edge enroll --out "devices/$i" 2>/dev/null)
  waybill-edge enroll --out "devices/$i" --provision "fleet/$id.json" >/dev/null 2>&1
  i=$((i + 1))
done
if [ "$count" -gt 1 ] && waybill-edge enroll --out devices/1 --provision "fleet/$id.json" >/dev/null 2>&1; then
  echo "device 1 took the file of device $count" >&2
  exit 1
fi

# 2. No round trip: the image carries one file, each device enrols at its first boot and its request is collected later.
mkdir -p image
cp template.json image/provisioning.json
cp trust.signed image/
: >collected.jsonl
i=1
while [ "$i" -le "$count" ]; do
  waybill-edge enroll --out "booted/$i" --provision image/provisioning.json --label "serial=b-$i" >/dev/null 2>&1
  cat "booted/$i/request.json" >>collected.jsonl # or: enroll --post https://enrol.example/requests
  i=$((i + 1))
done
waybill channel provision - --out fleet <collected.jsonl
