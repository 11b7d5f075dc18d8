package waybill.device.hours

# Local time, from this hour to before that one.
from := 1

to := 5

quiet if {
	input.time.local.minutesOfDay >= from * 60
	input.time.local.minutesOfDay < to * 60
}

# A site that never sleeps says so by a label.
quiet if object.get(input.device.labels, "hours", "night") == "any"
