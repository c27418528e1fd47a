#!/usr/bin/env python3
"""A dispatch centre in a hundred lines: takes events, proves that none is missing, says that it has them, shows alarms.

    pip install -r requirements.txt
    ./subscriber.py --site hil                         # broker on 127.0.0.1:1883
    ./subscriber.py --site spring-street --broker broker.example:8883 --cafile ca.crt --cert dispatch.crt --key dispatch.key

Events go to a file, one JSON line each, before their receipt goes out: a receipt says "I have it durably", and the gateway forgets
what it got a receipt for. The contract: docs/contract.md. Standard output is for programs that read along, one line a happening.
"""

import argparse
import hashlib
import json
import os
import sys
import uuid
from datetime import datetime, timezone

import paho.mqtt.client as mqtt
import rfc8785
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

OF_THE_SENDING = ("senttime", "historical", "attempt")  # differ between copies of one event; not hashed


class Ledger:
    """One gateway's journal: which sequences came, and does each carry the hash of the one before it."""

    def __init__(self):
        self.seen, self.stated, self.duplicates, self.faults = {}, 0, 0, []

    def take(self, event):
        """True when the event is new."""
        journaled = {name: value for name, value in event.items() if name not in OF_THE_SENDING}
        digest = hashlib.sha256(rfc8785.dumps(journaled)).hexdigest()
        sequence = int(event["sequence"])
        if sequence in self.seen:
            self.duplicates += 1
            if self.seen[sequence][0] != digest:
                self.faults.append(f"two different events have sequence {sequence}")
            return False
        self.seen[sequence] = (digest, event["prevhash"])
        for earlier, later in ((sequence - 1, sequence), (sequence, sequence + 1)):
            if earlier in self.seen and later in self.seen and self.seen[later][1] != self.seen[earlier][0]:
                self.faults.append(f"sequence {later} does not carry the hash of {earlier}")
        if sequence == 1 and event["prevhash"] != "0" * 64:
            self.faults.append("sequence 1 does not begin the chain")
        return True

    def __str__(self):
        if not self.seen:
            return "nothing received yet"
        first, last = min(self.seen), max(max(self.seen), self.stated)
        missing = [n for n in range(first, last + 1) if n not in self.seen]
        gaps = f"MISSING {missing[:16]}" if missing else "nothing missing"
        chain = f"CHAIN BROKEN: {self.faults[:4]}" if self.faults else "chain ok"
        return f"received {first}…{last}, {gaps}, {chain}, {self.duplicates} duplicates"


class Centre:
    def __init__(self, args):
        self.args, self.ledgers = args, {}
        self.store = open(args.journal, "ab")
        self.root = f"gengfu/v1/{args.site}"
        # Both MQTT versions carry the same bytes; the session is kept, so what is sent while this program is away waits for it.
        version = mqtt.MQTTv5 if args.mqtt == "5" else mqtt.MQTTv311
        clean = {} if args.mqtt == "5" else {"clean_session": False}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=args.name, protocol=version, manual_ack=True, **clean)
        self.client.on_connect, self.client.on_message, self.client.on_subscribe = self.connected, self.message, self.subscribed
        if not args.observe:
            self.client.will_set(f"{self.root}/dispatch/status", self.presence("offline"), qos=1, retain=True)
        if args.cafile:
            self.client.tls_set(args.cafile, args.cert, args.key)

    def presence(self, state):
        return json.dumps({"state": state, "at": now()})

    def run(self):
        host, _, port = self.args.broker.rpartition(":")
        kept = {}
        if self.args.mqtt == "5":
            kept = {"clean_start": False, "properties": Properties(PacketTypes.CONNECT)}
            kept["properties"].SessionExpiryInterval = 14 * 24 * 3600
        self.client.connect(host, int(port), keepalive=30, **kept)
        self.client.loop_forever(retry_first_connection=True)

    def connected(self, client, _data, _flags, reason, _properties):
        if reason.is_failure:
            sys.exit(f"the broker refuses: {reason}; check user, certificate and access rules (config/broker)")
        client.subscribe([(f"{self.root}/+/event", 1), (f"{self.root}/+/statement", 1)])
        if not self.args.observe:
            client.publish(f"{self.root}/dispatch/status", self.presence("online"), qos=1, retain=True)

    def subscribed(self, _client, _data, _mid, reasons, _properties):
        if any(reason.is_failure for reason in reasons):
            sys.exit(f"the broker refuses the subscription: {reasons}; check its access rules (config/broker)")
        say("ready", site=self.args.site)

    def message(self, client, _data, message):
        gateway, kind = message.topic.split("/")[3:5]
        ledger = self.ledgers.setdefault(gateway, Ledger())
        try:
            body = json.loads(message.payload)
            if kind == "statement":
                ledger.stated = max(ledger.stated, body["sequence"])
                say("statement", gateway=gateway, proof=str(ledger))
            else:
                self.event(client, gateway, ledger, body, message.payload)
        except (ValueError, KeyError) as fault:  # not of this contract: shown, never received for
            say("malformed", topic=message.topic, fault=repr(fault))
        client.ack(message.mid, message.qos)

    def event(self, client, gateway, ledger, event, payload):
        if not event["type"].endswith(".v1"):
            raise ValueError(f"{event['type']} is not of contract major 1: update this program")
        if ledger.take(event):
            self.store.write(payload + b"\n")
            self.store.flush()
            os.fsync(self.store.fileno())
            say("event", gateway=gateway, sequence=int(event["sequence"]), id=event["id"], type=event["type"], hash=ledger.seen[int(event["sequence"])][0])
            if event["type"].startswith("gengfu.alarm."):
                self.show(gateway, event)
        if not self.args.observe:  # also for a copy: the first receipt may have been lost
            receipt = {"ids": [event["id"]], "received_at": now()}
            client.publish(f"{self.root}/{gateway}/cmd/receipt/{uuid.uuid4()}", json.dumps(receipt), qos=1)

    def show(self, gateway, event):
        alarm = event["data"]
        late = " [补报 / sent late]" if event.get("historical") else ""
        drill = "" if alarm["cap"]["status"] == "Actual" else f" [{alarm['cap']['status']}]"
        title, why = alarm["title"], alarm["explanation"]["text"]
        print(f"{event['time']} {gateway}/{alarm['device']} {title['zh']} / {title['en']}: {alarm['condition']}{drill}{late}\n    {why['zh']} / {why['en']}", file=sys.stderr)


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def say(what, **details):
    print(json.dumps({"what": what, **details}, ensure_ascii=False), flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", required=True)
    parser.add_argument("--broker", default="127.0.0.1:1883", help="host:port")
    parser.add_argument("--mqtt", choices=("5", "3.1.1"), default="5")
    parser.add_argument("--name", default="python-subscriber", help="client id; the broker keeps the session under it")
    parser.add_argument("--journal", default="events.jsonl", help="where events are stored before their receipt")
    parser.add_argument("--observe", action="store_true", help="send no receipts and no presence: another centre does")
    parser.add_argument("--cafile"), parser.add_argument("--cert"), parser.add_argument("--key")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        Centre(arguments()).run()
    except KeyboardInterrupt:
        pass
