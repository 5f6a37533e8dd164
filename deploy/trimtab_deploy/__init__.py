"""The control plane: registry, delivery, fleet, trials, rollouts and their gates, HTTP API.

Read in this order: `engine` decides (pure), `store` remembers (SQLite), `conductor` turns decisions
into facts and messages, `inbox` and `delivery` speak MQTT, `api` speaks HTTP, `broker` runs the
broker, `bootstrap` puts the real parts together.
"""
