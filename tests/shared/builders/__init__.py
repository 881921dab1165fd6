"""Files as the world makes them, sound and faulty, for tests to read (see ``pythonpath``)."""
