"""Modbus units for the tests: pymodbus's own server, RTU on a serial port or TCP, driven by lines on standard input.

    modbus_server.py rtu PORT UNITS     modbus_server.py tcp TCPPORT UNITS
    UNITS: ID:TABLE:COUNT[,...]         TABLE: c (coils), d (discrete inputs), h (holding), i (input registers)

Commands, each answered with "ok" on standard output:
    set ID ADDRESS VALUE...     values from ADDRESS on, in the unit's table
    mute ID | speak ID          the unit reads requests and does not answer | answers again
    garble ID                   its next answer has one bit turned, where the protocol can see it
Prints "ready" when it listens. It owns no judgement; the tests ask the questions.
"""
import asyncio
import sys

from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

VALUES, MUTED, GARBLED = {}, set(), set()


def device(unit, table, count):
    values = VALUES[unit] = [0] * count
    bits = table in "cd"

    async def action(function, start, address, wanted, registers, new):
        if bits:
            for n in range(len(registers)):
                some = values[16 * n:16 * n + 16]
                registers[n] = sum(1 << k for k, bit in enumerate(some) if bit)
        else:
            registers[:len(values)] = values

    kind = DataType.BITS if bits else DataType.REGISTERS
    empty = {t: [SimData(65000, values=[False] * 16 if t in "cd" else [0], datatype=DataType.BITS if t in "cd" else DataType.REGISTERS)] for t in "cdhi"}
    padded = [False] * (-(-count // 16) * 16) if bits else [0] * count
    empty[table] = [SimData(0, values=padded, datatype=kind)]
    return SimDevice(unit, simdata=(empty["c"], empty["d"], empty["h"], empty["i"]), action=action, use_bit_addressing=True)


def trace(offset):
    def packet(sending, data):
        if sending and len(data) > offset:
            unit = data[offset]
            if unit in MUTED:
                return b""
            if unit in GARBLED:
                GARBLED.discard(unit)
                # RTU: the checksum. TCP has none: the transaction's number.
                at = len(data) - 1 if offset == 0 else 1
                return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
        return data
    return packet


def obey(line):
    word, unit, *rest = line.split()
    unit = int(unit)
    if word == "set":
        at, new = int(rest[0]), [int(v) for v in rest[1:]]
        VALUES[unit][at:at + len(new)] = new
    elif word == "mute":
        MUTED.add(unit)
    elif word == "speak":
        MUTED.discard(unit)
    elif word == "garble":
        GARBLED.add(unit)
    else:
        raise ValueError(line)


async def main():
    kind, place, units = sys.argv[1:4]
    devices = [device(int(u), t, int(n)) for u, t, n in (unit.split(":") for unit in units.split(","))]
    common = {"ignore_missing_devices": True, "trace_packet": trace(0 if kind == "rtu" else 6)}
    if kind == "rtu":
        server = ModbusSerialServer(devices, framer=FramerType.RTU, port=place, baudrate=115200, **common)
    else:
        server = ModbusTcpServer(devices, address=("127.0.0.1", int(place)), **common)
    await server.serve_forever(background=True)
    print("ready", flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode():
        obey(line)
        print("ok", flush=True)
    await server.shutdown()


asyncio.run(main())
