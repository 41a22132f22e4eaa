"""Does the simulator tell what a server will do?"""
