package waybill.device_test

import data.waybill.device

input_at(action, minutes, percent) := {
	"schema": "waybill.dev/device-input/v1",
	"action": action,
	"time": {"unix": 1790000000, "local": {"known": true, "minutesOfDay": minutes, "weekday": "tuesday"}},
	"device": {
		"class": "edge-s", "labels": {},
		"memory": {"known": true, "freeBytes": 600000000, "totalBytes": 1000000000},
		"storage": {"known": true, "freeBytes": 1000000000},
		"battery": {"known": true, "present": true, "percent": percent, "charging": false},
		"power": {"known": true, "source": "battery"},
		"network": {"known": true, "connected": true},
		"metered": {"known": true, "value": false},
		"temperature": {"known": false},
	},
	"model": {
		"name": "churn", "version": "2.0", "epoch": 0, "bytes": 5000000, "download": 5000000,
		"digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000",
		"memory": {"known": true, "bytes": 64000000},
	},
	"current": {"known": false},
}

test_download if device.allow with input as input_at("download", 720, 80)

test_low_battery if {
	doc := input_at("download", 720, 12)
	not device.allow with input as doc
	device.reasons == {"battery 12 %, needs 30 % or mains"} with input as doc
}

test_no_reading if {
	doc := json.patch(input_at("download", 720, 80), [{"op": "replace", "path": "/device/battery", "value": {"known": false}}])
	not device.allow with input as doc
}

test_metered if {
	doc := json.patch(input_at("download", 720, 80), [{"op": "replace", "path": "/device/metered", "value": {"known": true, "value": true}}])
	not device.allow with input as doc
	device.allow with input as json.patch(doc, [{"op": "replace", "path": "/model/download", "value": 1000000}])
}

test_night if device.allow with input as input_at("activate", 120, 80)

test_day if not device.allow with input as input_at("activate", 720, 80)

test_any_hour if device.allow with input as json.patch(input_at("activate", 720, 80), [{"op": "add", "path": "/device/labels/hours", "value": "any"}])

test_clock_behind if {
	doc := json.patch(input_at("activate", 120, 80), [{"op": "replace", "path": "/time/local", "value": {"known": false}}])
	not device.allow with input as doc
}

test_memory if not device.allow with input as json.patch(input_at("activate", 120, 80), [{"op": "replace", "path": "/device/memory/freeBytes", "value": 300000000}])

test_large_device if {
	doc := json.patch(input_at("activate", 120, 80), [
		{"op": "replace", "path": "/device/memory/freeBytes", "value": 300000000},
		{"op": "replace", "path": "/device/class", "value": "edge-l"},
	])
	device.allow with input as doc
}
