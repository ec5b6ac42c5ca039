"""Cloudcast: send a data set from one cloud region to several others, cheaply, over relays of any provider."""
