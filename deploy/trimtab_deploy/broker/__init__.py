"""Brokers: one port, and an adapter per product."""

from trimtab_deploy.broker.port import Broker, BrokerAddress, Login

__all__ = ["Broker", "BrokerAddress", "Login"]
