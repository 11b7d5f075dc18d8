# Who is who, whose approval counts, what is waived.
package waybill.lib

# For this environment, or for any.
for_here(x) if x.environment == ""

for_here(x) if x.environment == input.environment.name

# The names that a text gives to somebody: "Ada <ada@example.com>" is the text, Ada and ada@example.com.
marks(t) := {m |
	some part in array.concat([t], split(trim_suffix(trim_space(t), ">"), "<"))
	m := lower(trim_space(part))
	m != ""
}

who(s) := marks(s.name) | marks(s.subject)

# One person: the same key or identity, or a name in common.
same_person(a, b) if a.keyId == b.keyId

same_person(a, b) if count(who(a) & who(b)) > 0

author_marks contains m if {
	some a in input.model.authors
	some m in marks(a)
}

# Who released this digest, or is named as its author.
is_author(s) if {
	some r in releases
	same_person(s, r.signer)
}

is_author(s) if count(who(s) & author_marks) > 0

# Verified yeses of people whom trust gives the role, for this environment.
yeses contains a if {
	some a in input.approvals
	a.rejected == false
	a.granted == true
	a.signer.role == "approver"
	for_here(a)
	in_force(a)
}

# Approvals that count: no author's, and not taken back since by the same person.
approvals contains a if {
	some a in yeses
	not is_author(a.signer)
	not taken_back(a)
}

taken_back(a) if {
	some r in input.approvals
	r.rejected == true
	for_here(r)
	same_person(a.signer, r.signer)
	ns(r.at) >= ns(a.at)
}

# Noes that stand. One that is dated in the future stands too.
rejections contains r if {
	some r in input.approvals
	r.rejected == true
	r.granted == true
	r.signer.role == "approver"
	for_here(r)
	now < ns(r.expires)
	not overruled(r)
}

# The same person has said yes in the same role since.
overruled(r) if {
	some a in yeses
	a.role == r.role
	same_person(a.signer, r.signer)
	ns(a.at) > ns(r.at)
}

# How many different people gave these approvals. Being one person carries over: a key shared with one name and another
# name shared with one key make one.
persons(given) := count({graph.reachable(links, {b}) | some b, _ in links}) if {
	links := {a.bundle: {b.bundle | some b in given; same_person(a.signer, b.signer)} | some a in given}
}

filled(given, role) if {
	some a in given
	a.role == role
}

suffice(given) if {
	persons(given) >= input.environment.approvals.minimum
	every r in input.environment.approvals.roles {
		filled(given, r)
	}
}

none_demanded if {
	input.environment.approvals.minimum == 0
	count(input.environment.approvals.roles) == 0
}

# Rules that leave out some of the approvals speak only where all of them together suffice: else APP-001 has spoken.
nothing_to_weigh := "the environment demands no approval" if none_demanded

nothing_to_weigh := "too few approvals count at all (APP-001)" if {
	not none_demanded
	not suffice(approvals)
}

weighed if {
	not none_demanded
	suffice(approvals)
}

# Why a verified approval does not count.
discounted contains {"bundle": a.bundle, "name": a.signer.name, "role": a.role, "why": why} if {
	some a in input.approvals
	a.rejected == false
	some why in reasons(a)
}

reasons(a) := {w |
	some w in array.concat(array.concat(not_given(a), not_now(a)), not_his(a))
}

not_given(a) := [w | w := "trust does not give the signer this role"; a.granted == false]

not_now(a) := array.concat(
	array.concat(
		[w | w := sprintf("it is for environment %s", [a.environment]); a.environment != ""; a.environment != input.environment.name],
		[w | w := sprintf("it expired at %s", [a.expires]); now >= ns(a.expires)],
	),
	[w | w := sprintf("it is dated %s, which is in the future", [a.at]); ns(a.at) > now],
)

not_his(a) := array.concat(
	[w | w := "the signer is an author of the model"; is_author(a.signer)],
	[w | w := "the same person has rejected it since"; taken_back(a)],
)

# An exception that lives no longer than the environment allows.
short(_) if input.environment.exceptions.maxDays == 0

short(x) if {
	input.environment.exceptions.maxDays > 0
	ns(x.expires) - ns(x.at) <= input.environment.exceptions.maxDays * day
}

# Exceptions that have effect.
waivers contains x if {
	some x in input.exceptions
	trim_space(x.reason) != ""
	in_force(x)
	for_here(x)
	x.rule in input.environment.exceptions.rules
	some r in x.roles
	r in input.environment.exceptions.roles
	short(x)
	not is_author(x.signer)
}
