# When a device may take a new model. It serves the one it has in the meantime.
#
#   waybill policy pack examples/device-policy --device --out device-policy.wasm
#   waybill policy eval examples/device-policy --input examples/device-policy/input.json
package waybill.device

import data.waybill.device.hours

default allow := false

# Downloads: enough power, storage for twice the model, and bytes that cost nothing.
allow if {
	input.action == "download"
	powered
	affordable
	input.device.storage.freeBytes >= 2 * input.model.download
}

# Activations: enough power and memory, and at an hour when nobody waits.
allow if {
	input.action == "activate"
	powered
	fits
	hours.quiet
}

powered if input.device.power.source == "mains"

powered if input.device.battery.percent >= 30

affordable if input.device.metered.value == false

# Up to a megabyte is affordable anywhere.
affordable if {
	input.device.metered.value == true
	input.model.download <= 1000000
}

# Small devices keep a quarter of their memory free beside the model.
fits if {
	small
	input.device.memory.freeBytes - input.model.memory.bytes >= input.device.memory.totalBytes / 4
}

fits if {
	not small
	input.device.memory.freeBytes >= input.model.memory.bytes
}

small if input.device.class in {"edge-xs", "edge-s"}

reasons contains $"battery {input.device.battery.percent} %, needs 30 % or mains" if {
	input.device.power.source == "battery"
	input.device.battery.percent < 30
}

reasons contains "neither battery nor power supply can be read" if {
	input.device.battery.known == false
	input.device.power.known == false
}

reasons contains $"{input.model.download} bytes over a metered network" if {
	input.action == "download"
	input.device.metered.value == true
}

reasons contains "nobody said whether the network is metered (sensors.metered)" if {
	input.action == "download"
	input.device.metered.known == false
}

reasons contains $"the model needs {input.model.memory.bytes} bytes, {input.device.memory.freeBytes} are free" if {
	input.action == "activate"
	not fits
}

reasons contains $"not before {hours.from}:00, nor from {hours.to}:00 on" if {
	input.action == "activate"
	not hours.quiet
}
