"""A Kafka client in Python, for what others write to Thalweg and see of it. Records are JSON lines; keys, values and headers are
hexadecimal, so that any bytes pass.

    client.py write BOOTSTRAP TOPIC [NAME=VALUE…]    lines of standard input; {"abort": true} and {"commit": true} end transactions
    client.py read BOOTSTRAP TOPIC                   all committed records, by partition and offset
    client.py positions BOOTSTRAP GROUP TOPIC        what a consumer group has committed, by partition
"""

import json
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

LIMIT = 60


def data(text):
    return None if text is None else bytes.fromhex(text)


def text(bytes_):
    return None if bytes_ is None else bytes_.hex()


def write(bootstrap, topic, *settings):
    config = dict(setting.split("=", 1) for setting in settings)
    producer = Producer({"bootstrap.servers": bootstrap, **config})
    transactional, failures = "transactional.id" in config, []
    if transactional:
        producer.init_transactions(LIMIT)
        producer.begin_transaction()
    for line in map(json.loads, sys.stdin):
        if "abort" in line or "commit" in line:
            # What is not delivered would not be aborted, but never written.
            producer.flush(LIMIT)
            producer.abort_transaction(LIMIT) if "abort" in line else producer.commit_transaction(LIMIT)
            producer.begin_transaction()
            continue
        place = {name: line[name] for name in ("partition", "timestamp") if line.get(name) is not None}
        headers = [(name, data(value)) for name, value in line["headers"]]
        heard = lambda error, _: failures.append(error) if error else None
        producer.produce(topic, data(line["value"]), data(line["key"]), headers=headers, on_delivery=heard, **place)
    if transactional:
        producer.commit_transaction(LIMIT)
    waiting = producer.flush(LIMIT)
    assert waiting == 0 and not failures, f"{waiting} records were not delivered: {failures}"


def open_consumer(bootstrap, group):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    return consumer


def partitions(consumer, topic):
    return sorted(consumer.list_topics(topic, LIMIT).topics[topic].partitions)


def read(bootstrap, topic):
    consumer = open_consumer(bootstrap, "of-python")
    waiting = set(partitions(consumer, topic))
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in waiting])
    records = []
    while waiting:
        message = consumer.poll(LIMIT)
        assert message is not None, f"nothing comes of the partitions {waiting}"
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            waiting.discard(message.partition())
            continue
        record = {
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": message.timestamp()[1],
            "key": text(message.key()),
            "value": text(message.value()),
            "headers": [[name, text(value)] for name, value in message.headers() or []],
        }
        records.append(record)
    for record in sorted(records, key=lambda record: (record["partition"], record["offset"])):
        print(json.dumps(record))


def positions(bootstrap, group, topic):
    consumer = open_consumer(bootstrap, group)
    wanted = [TopicPartition(topic, partition) for partition in partitions(consumer, topic)]
    committed = consumer.committed(wanted, LIMIT)
    print(json.dumps({place.partition: place.offset for place in committed if place.offset >= 0}))


if __name__ == "__main__":
    {"write": write, "read": read, "positions": positions}[sys.argv[1]](*sys.argv[2:])
