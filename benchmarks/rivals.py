"""The links that are compared: ours, and each rival that is installed.

A link is made in the parent. `open(role)` in a worker gives that worker's side: role 0 sends, role 1 receives; a
side of a `duplex` link
can do both, which round trips need. The side's `put` and `get` are the rival's own bound methods wherever it has such:
no wrapper of ours is timed.
"""

import importlib
import os
import secrets
import tempfile
import time
from multiprocessing import get_context

CAPACITY = 4096  # messages
LARGEST = 64  # bytes, for those who want to know beforehand


def nothing(*unused):
    pass


class Side:
    """One worker's end of a link."""

    before_lap = after_lap = staticmethod(nothing)  # how many were sent, or have been received, in this round
    flush = close = staticmethod(nothing)
    put = get = put_many = get_many = None


class Link:
    name = "?"
    group = "rival"
    module = None  # what must be importable
    start_method = "spawn"
    receiver_first = True
    batches = False
    trips = True
    bytes_only = False

    def open(self, role):
        raise NotImplementedError

    def close(self):
        pass


# ---- ours ----


class Ring(Link):
    """RingBufferChannel there and back, attached by name."""

    name = "shmcomm"
    group = "ours"
    module = "shmcomm"
    batches = True

    def __init__(self, capacity=CAPACITY, buffer_size=None, spin=None, codec="auto"):
        from shmcomm import RingBufferChannel

        self.spin = spin
        self.rings = [
            RingBufferChannel(
                capacity, buffer_size=buffer_size, codec=codec, spin=spin, name=f"bench.{secrets.token_hex(4)}"
            )
            for _ in range(2)
        ]
        self.names = [ring.name for ring in self.rings]

    def __getstate__(self):
        return {"names": self.names, "spin": self.spin}

    def open(self, role):
        from shmcomm import RingBufferChannel

        side = Side()
        there, back = (RingBufferChannel.attach(name, spin=self.spin) for name in self.names)
        out, into = (there, back) if role == 0 else (back, there)
        if role == 1:
            side.get, side.get_many = there.receive, there.receive_batch
            side.put = back.send
        else:
            side.put, side.put_many = out.send, out.send_batch
            side.get = into.receive
        side.channels = there, back
        return side

    def close(self):
        for ring in self.rings:
            ring.close()


# ---- the standard library ----


class MpQueue(Link):
    name = "multiprocessing.Queue"
    kind = "Queue"

    def __init__(self):
        context = get_context(self.start_method)
        self.queues = [getattr(context, self.kind)() for _ in range(2)]

    def __getstate__(self):
        return self.__dict__

    def open(self, role):
        side = Side()
        out, into = self.queues if role == 0 else reversed(self.queues)
        side.put, side.get = out.put, into.get
        return side


class SimpleQueue(MpQueue):
    name = "multiprocessing.SimpleQueue"
    kind = "SimpleQueue"


class Pipe(Link):
    name = "multiprocessing.Pipe"

    def __init__(self):
        self.ends = get_context(self.start_method).Pipe(duplex=True)

    def open(self, role):
        side = Side()
        side.connection = self.ends[role]
        side.put, side.get = side.connection.send, side.connection.recv
        return side

    def close(self):
        for end in self.ends:
            end.close()


class BytePipe(Pipe):
    name = "multiprocessing.Pipe, send_bytes"
    bytes_only = True

    def open(self, role):
        side = super().open(role)
        side.put, side.get = side.connection.send_bytes, side.connection.recv_bytes
        return side


# ---- packages ----


class FasterFifo(Link):
    name = "faster-fifo"
    module = "faster_fifo"
    batches = True

    def __init__(self):
        from faster_fifo import Queue

        # Its memory can be inherited or pickled to a child that is just being started, not attached by name.
        self.queues = [Queue(CAPACITY * 256) for _ in range(2)]

    def open(self, role):
        side = Side()
        out, into = self.queues if role == 0 else reversed(self.queues)

        def get_many(count):
            return into.get_many(timeout=60.0, max_messages_to_get=count)

        side.put, side.get = out.put, into.get
        side.put_many, side.get_many = out.put_many, get_many
        return side


class Zmq(Link):
    name = "pyzmq ipc"
    module = "zmq"
    bytes_only = True

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="shmcomm-bench.")
        self.address = f"ipc://{self.folder}/socket"

    def open(self, role):
        import zmq

        side = Side()
        context = zmq.Context()
        socket = context.socket(zmq.PAIR)
        socket.set(zmq.SNDHWM, CAPACITY)
        socket.set(zmq.RCVHWM, CAPACITY)
        if role == 1:
            socket.bind(self.address)
        else:
            socket.connect(self.address)
        side.put, side.get = socket.send, socket.recv
        side.close = lambda: context.destroy(linger=0)
        return side

    def close(self):
        for name in os.listdir(self.folder):
            os.unlink(os.path.join(self.folder, name))
        os.rmdir(self.folder)


class PosixMessageQueue(Link):
    name = "posix-ipc MessageQueue"
    module = "posix_ipc"
    bytes_only = True

    def __init__(self):
        import posix_ipc

        self.names = [f"/shmcomm-bench-{secrets.token_hex(4)}-{i}" for i in range(2)]
        self.queues = [
            posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=10, max_message_size=LARGEST)
            for name in self.names
        ]

    def __getstate__(self):
        return {"names": self.names}

    def open(self, role):
        import posix_ipc

        side = Side()
        out, into = (posix_ipc.MessageQueue(name) for name in (self.names if role == 0 else reversed(self.names)))
        receive = into.receive
        side.put, side.get = out.send, lambda: receive()[0]
        return side

    def close(self):
        for queue in self.queues:
            queue.close()
            queue.unlink()


class Kickmsg(Link):
    """Lossy by design: a sender that runs ahead overwrites. So the receiver tells how far it is, through a word of
    shared
    memory, and the sender waits for it between laps; neither is in the path of a single message."""

    name = "kickmsg"
    module = "kickmsg"
    bytes_only = True

    def __init__(self):
        import kickmsg

        config = kickmsg.Config()
        config.max_subscribers = 2
        config.sub_ring_capacity = CAPACITY
        config.pool_size = 2 * CAPACITY
        config.max_payload_size = LARGEST
        self.names = [f"/shmcomm-bench-{secrets.token_hex(4)}-{i}" for i in range(2)]
        self.regions = [
            kickmsg.SharedRegion.create(name, kickmsg.ChannelType.PubSub, config, "shmcomm benchmarks")
            for name in self.names
        ]
        self.folder = tempfile.mkdtemp(prefix="shmcomm-bench.", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.progress = os.path.join(self.folder, "progress")
        with open(self.progress, "wb") as file:
            file.write(bytes(8))

    def __getstate__(self):
        return {"names": self.names, "progress": self.progress}

    def open(self, role):
        import mmap
        from datetime import timedelta

        import kickmsg

        side = Side()
        out, into = (kickmsg.SharedRegion.open(name) for name in (self.names if role == 0 else reversed(self.names)))
        publisher, subscriber = kickmsg.Publisher(out), kickmsg.Subscriber(into)
        with open(self.progress, "r+b") as file:
            received = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
        receive, patience = subscriber.receive, timedelta(seconds=30)

        def get():
            return receive(patience)

        def before_lap(sent):
            if sent == 0:
                received[0] = 0
            while sent - received[0] > CAPACITY // 2:
                time.sleep(0)

        def after_lap(count):
            received[0] = count
            if subscriber.lost:
                raise RuntimeError(f"kickmsg lost {subscriber.lost} messages: the sender was not held back enough")

        side.put, side.get = publisher.send, get
        side.before_lap, side.after_lap = before_lap, after_lap
        side.kept = out, into, publisher, subscriber
        return side

    def close(self):
        import kickmsg

        for name in self.names:
            kickmsg.unlink_shm(name)
        os.unlink(self.progress)
        os.rmdir(self.folder)


class Iceoryx2(Link):
    """Publish-subscribe without a service for waking up, so both sides poll."""

    name = "iceoryx2, polling"
    module = "iceoryx2"
    bytes_only = True

    def __init__(self):
        self.names = [f"shmcomm-bench-{secrets.token_hex(4)}-{i}" for i in range(2)]

    def open(self, role):
        import ctypes

        import iceoryx2 as iox2

        class Payload(ctypes.Structure):
            _fields_ = [("bytes", ctypes.c_uint8 * LARGEST)]

            @staticmethod
            def type_name():
                return "Payload"

        iox2.set_log_level(iox2.LogLevel.Error)
        node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)
        services = [
            node.service_builder(iox2.ServiceName.new(name))
            .publish_subscribe(Payload)
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(CAPACITY)
            .open_or_create()
            for name in (self.names if role == 0 else self.names[::-1])
        ]
        publisher = (
            services[0]
            .publisher_builder()
            .backpressure_strategy(iox2.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )
        subscriber = services[1].subscriber_builder().create()
        send, receive, load = publisher.send_copy, subscriber.receive, Payload.from_buffer_copy

        def put(message):
            send(load(message))

        def get():
            while (sample := receive()) is None:
                pass
            return bytes(sample.payload().contents)

        side = Side()
        side.put, side.get = put, get
        side.close = [publisher, subscriber, services, node].clear  # what these names hold ends with the worker
        return side


ALL = [Ring, MpQueue, SimpleQueue, Pipe, BytePipe, FasterFifo, Kickmsg, Zmq, Iceoryx2, PosixMessageQueue]


def missing(link):
    """Why a link cannot be measured here; None if it can."""
    if link.module is None:
        return None
    try:
        importlib.import_module(link.module)
    except ImportError as error:
        return "not installed" if isinstance(error, ModuleNotFoundError) and error.name == link.module else str(error)
    return None
